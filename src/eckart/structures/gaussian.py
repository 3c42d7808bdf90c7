"""Matrices of few entries that are normally distributed, each with a mean and a deviation of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.sparse_product import sparse_product
from eckart.structures._checks import float_leaf
from eckart.structures.base import structure
from eckart.structures.scattered import Scattered

LEAST = 1e-8
"""Added to the variance of an output, so that its root has a slope."""


@structure("gaussian")
class Gaussian(Scattered):
    """`nnz` entries w ~ N(values, softplus(spread)^2) with their places; all others are zero.

    It multiplies by the means. While `noise` is set, outputs are drawn instead: y ~ N(x mean^T, x^2 (deviation^2)^T),
    which is what drawing W anew for every vector gives (local reparametrization).

    Args:
        values: the means (nnz,), floating point.
        spread: (nnz,), of the same dtype.
        places: (2, nnz), integer: row and column of each.
        out: number of rows.
        columns: number of columns, in.

    Attributes:
        noise: what draws, on the CPU; None for means.
    """

    spread: nn.Parameter
    noise: torch.Generator | None

    def __init__(self, values: Tensor, spread: Tensor, places: Tensor, *, out: int, columns: int) -> None:
        super().__init__(values, places, out=out, columns=columns)
        if float_leaf("Gaussian", "spread", spread, 1).shape != values.shape or spread.dtype != values.dtype:
            raise Refused(f"Gaussian: {len(values)} values in {values.dtype} need as many spreads, of that dtype")
        self.leaf("spread", spread)
        self.noise = None

    @property
    def deviation(self) -> Tensor:
        """Of each entry, (nnz,)."""
        return F.softplus(self.spread)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.noise is None:
            return y
        row, order = self.places[0].long().sort(stable=True)
        offsets = torch.searchsorted(row, torch.arange(self.shape[0] + 1, device=row.device))
        column = self.places[1].long().index_select(0, order)
        squares = x.reshape(-1, self.shape[1]).square()
        variance = sparse_product(self.deviation.square().index_select(0, order), column, offsets, squares)
        return self.drawn(y, variance.reshape(y.shape))

    def variances(self) -> Tensor:
        """deviation^2 as a matrix (out, in), zero where no entry is."""
        row, column = self.places.long()
        return self.values.new_zeros(self.shape).index_put((row, column), self.deviation.square(), accumulate=True)

    def drawn(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Outputs of that mean and variance."""
        normal = torch.randn(mean.shape, generator=self.noise, dtype=torch.float64).to(mean.dtype).to(mean.device)
        return mean + (variance.clamp_min(0) + LEAST).sqrt() * normal
