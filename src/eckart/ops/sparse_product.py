"""The product with a sparse matrix, forward and backward."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ENOUGH = 1 / 50
"""From this share of stored entries on, the gradient of the values is faster by way of that of all entries of W: for
512 vectors and a matrix of 1536 x 576, a multiply-add of the one takes about 50 times as long as one of the other."""
PIECE = 1 << 18
"""Entries of the gradient of W that are there at once."""


def sparse_product(values: Tensor, columns: Tensor, offsets: Tensor, x: Tensor) -> Tensor:
    """x W^T for a matrix in compressed sparse rows.

    Args:
        values: (nnz,), row after row.
        columns: (nnz,), int32 or int64, in any order within a row.
        offsets: (out + 1,), of the same dtype.
        x: (n, in).

    Returns:
        (n, out).
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or values.requires_grad)
    shape = len(offsets) - 1, x.shape[1]
    if wanted and (not values.requires_grad or len(values) >= ENOUGH * shape[0] * shape[1]):
        product: Tensor = _Product.apply(values, columns, offsets, x)  # type: ignore[no-untyped-call]
        return product
    return _bags(values, columns, offsets, x)


def _bags(values: Tensor, columns: Tensor, offsets: Tensor, x: Tensor) -> Tensor:
    # W x.T is a weighted sum over a bag of rows of x.T for each row of W: neither W nor the nnz products of every
    # vector of the batch are formed.
    y = F.embedding_bag(
        columns, x.T.contiguous(), offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )
    return y.T


class _Product(torch.autograd.Function):
    """`_bags`, with the gradient of x as a product with the transpose, and that of values out of dloss/dW."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, columns: Tensor, offsets: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(values, columns, offsets, x)
        return _bags(values, columns, offsets, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        values, columns, offsets, x = ctx.saved_tensors
        row = torch.arange(len(offsets) - 1, device=x.device).repeat_interleave(offsets.diff())
        of_values = of_x = None
        if ctx.needs_input_grad[0]:
            of_values = _of_values(g, x, row, columns, offsets)
        if ctx.needs_input_grad[3]:
            column, order = columns.long().sort(stable=True)
            starts = torch.searchsorted(column, torch.arange(x.shape[1] + 1, device=x.device))
            of_x = _bags(values.index_select(0, order), row.index_select(0, order), starts, g)
        return of_values, None, None, of_x


def _of_values(g: Tensor, x: Tensor, row: Tensor, columns: Tensor, offsets: Tensor) -> Tensor:
    """dloss/dvalues, out of dloss/dW, of which some rows are formed at a time."""
    out, size = g.shape[1], x.shape[1]
    step = max(1, PIECE // size)
    ends = offsets[torch.arange(0, out + step, step, device=offsets.device).clamp(max=out)].tolist()
    found = []
    for i, (first, last) in enumerate(pairwise(ends)):
        top = i * step
        piece = (g[:, top : top + step].T @ x).flatten()
        found.append(piece.index_select(0, (row[first:last] - top) * size + columns[first:last]))
    return torch.cat(found)
