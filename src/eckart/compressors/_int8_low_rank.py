"""The family of low-rank candidates whose factors are stored in 8 bits: every rank is a slice of one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eckart.compressors._low_rank import bias_cost, rank_step
from eckart.compressors.contract import Fitted
from eckart.errors import Refused
from eckart.linalg.low_rank import nested_errors, project
from eckart.metrics import Metric
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.quantized import Quantized, quantized_cost

BITS = 8
GROUP = 64


@dataclass
class Int8LowRank:
    """Ranks of one matrix as candidates `Chain(Quantized, Quantized)`; see `eckart.compressors.contract.Family`.

    At half the bytes of a value, a rank pays up to twice as high as in two dense factors, to full rank if need be.

    Attributes:
        weight: W (out, in).
        left: (out, k), k = min(out, in), codes of 8 bits; rank r stores the first r columns.
        right: (k, in), likewise; the first r rows.
        all_errors: squared error at rank 0, 1, ..., k, rounding included.
        spectrum: squared singular values of W in the metric, descending.
        mean: E[x] (in,): the mean output of what is cut off becomes a bias; None for no bias.
    """

    weight: Tensor
    left: Quantized
    right: Quantized
    all_errors: Tensor
    spectrum: Tensor
    mean: Tensor | None = None

    @cached_property
    def sizes(self) -> Sequence[int]:
        """The ranks that take fewer bytes than the dense matrix, and err no more than the zero matrix."""
        top, step = min(self.weight.shape), rank_step(*self.weight.shape)
        dense = self.weight.numel() * self.weight.element_size()
        least = self.all_errors[1:].cummin(0).values
        ranks = range(step, top + 1, step)
        return [r for r in ranks if self._cost(r).bytes < dense and least[r - 1] <= self.all_errors[0]]

    @property
    def costs(self) -> Sequence[Cost]:
        return [self._cost(rank) for rank in self.sizes]

    @property
    def errors(self) -> Tensor:
        """Squared error of each rank; where rounding outweighs what a rank adds, that of the best smaller one."""
        return self.all_errors[1:].cummin(0).values[[rank - 1 for rank in self.sizes]]

    @property
    def zero_error(self) -> float:
        """Squared error of the zero matrix in the metric: the squared norm of W."""
        return float(self.all_errors[0])

    def _cost(self, rank: int) -> Cost:
        out, columns = self.weight.shape
        parts = (quantized_cost(shape, BITS, GROUP, self.weight.dtype) for shape in ((out, rank), (rank, columns)))
        return sum(parts, bias_cost(self.weight, self.mean))

    def build(self, size: int) -> Fitted:
        """The candidate of rank `size`, or the best one of a smaller rank where that has a smaller error."""
        if not 1 <= size <= min(self.weight.shape):
            raise Refused(f"a matrix of shape {tuple(self.weight.shape)} has ranks 1 to {min(self.weight.shape)}")
        rank = int(self.all_errors[1 : size + 1].argmin()) + 1
        left, right = _columns(self.left, rank), _rows(self.right, rank)
        bias = None
        if self.mean is not None:
            a, b, mean = left.to_dense().detach().double(), right.to_dense().detach().double(), self.mean.double()
            bias = (self.weight.double() @ mean - a @ (b @ mean)).to(self.weight.dtype)
        return Fitted(Chain(left, right), bias, float(self.all_errors[rank]))


def fit_int8_low_rank(weight: Tensor, metric: Metric, mean: Tensor | None = None) -> Int8LowRank:
    """The low-rank optima of a metric, their factors rounded to 8 bits in groups of 64.

    The columns of the left factor have unit norm: where the metric has no left side they are orthonormal. Their entries
    are then of one size, so that a group, which runs over 64 ranks of a row, rounds all of them alike; the rows of the
    right factor fall with the singular values, and each has groups of its own.

    Raises:
        Refused: weight or metric do not fit or are not finite, or the error overflows.
    """
    projection = project(weight, metric)
    w = weight.detach().double()
    if projection.left:
        left, right = projection.synthesis, projection.analysis.T @ w
    else:
        left, right = w @ projection.analysis, projection.synthesis.T
    norms = torch.linalg.vector_norm(left, dim=0)
    norms = torch.where(norms > 0, norms, 1.0)
    left, right = left / norms, right * norms[:, None]
    # One common factor keeps both in the range of a short dtype; no rounding depends on it.
    ratio = float(right.abs().max() / left.abs().max())
    middle = ratio**0.5 if 0 < ratio < float("inf") else 1.0
    codes, rows = (Quantized.quantize(f, BITS, GROUP, dtype=weight.dtype) for f in (left * middle, right / middle))
    errors = nested_errors(w, codes.to_dense().detach(), rows.to_dense().detach(), metric)
    return Int8LowRank(weight.detach(), codes, rows, errors, -projection.errors.diff(), mean)


def _columns(matrix: Quantized, count: int) -> Quantized:
    # A code of 8 bits is a byte: no packing.
    groups = -(-count // matrix.group)
    zeros = None if matrix.zeros is None else matrix.zeros[:, :groups].clone()
    scales = matrix.scales.detach()[:, :groups].clone()
    return Quantized(matrix.codes[:, :count].clone(), scales, zeros, bits=BITS, group=matrix.group, columns=count)


def _rows(matrix: Quantized, count: int) -> Quantized:
    zeros = None if matrix.zeros is None else matrix.zeros[:count].clone()
    scales = matrix.scales.detach()[:count].clone()
    return Quantized(matrix.codes[:count].clone(), scales, zeros, bits=BITS, group=matrix.group, columns=matrix.columns)
