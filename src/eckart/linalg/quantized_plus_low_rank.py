"""A quantized matrix and a product of low rank, each fitted to what the other leaves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eckart.linalg.low_rank import balanced, project
from eckart.metrics import Metric
from eckart.structures.quantized import Quantized

ITERATIONS = 100
TOLERANCE = 1e-3
"""The iteration ends where the squared error falls by less than this share."""


def codes_and_product(
    weight: Tensor, rows: Tensor, columns: Tensor, start: tuple[Tensor, Tensor], quantize: Callable[[Tensor], Quantized]
) -> tuple[Quantized, Tensor, Tensor]:
    """W ~ Q + L1 L2 in turns: `Q = quantize(W - L1 L2)`, L1 L2 a step towards the best product for W - Q.

    Algorithm 2 of LQ-LoRA (Guo et al. 2023, arXiv 2311.12023) with three changes: one step of orthogonal iteration from
    the last factors takes the place of an SVD, and arrives with the codes; the error is taken behind it; and the best Q
    is returned, not the one at which the error rose. L1 L2 is the optimum for that Q.

    Args:
        weight: W (out, in).
        rows: weights of the squared error, positive, (out,).
        columns: likewise, (in,).
        start: L1 (out, r) and L2 (r, in), the optimum for Q = 0.
        quantize: codes for a matrix.

    Returns:
        Q, L1 and L2; the factors in float64, of equal norms.
    """
    w, (left, right), metric = weight.double(), start, Metric(rows, columns)
    g, h = rows.sqrt()[:, None], columns.sqrt()
    best = codes = quantize(w - left @ right)
    least = float("inf")
    for _ in range(ITERATIONS):
        rest = w - codes.to_dense().detach().double()
        weighted = g * rest * h
        basis = torch.linalg.qr(weighted @ torch.linalg.qr((right * h).T).Q).Q
        left, right = basis / g, basis.T @ weighted / h
        error = float(metric.error(rest - left @ right))
        if error < least:
            best = codes
        if not error < (1 - TOLERANCE) * least:
            break
        least = error
        codes = quantize(w - left @ right)
    rest = w - best.to_dense().detach().double()
    return best, *balanced(*project(rest, metric).factors(rest, start[0].shape[1]))
