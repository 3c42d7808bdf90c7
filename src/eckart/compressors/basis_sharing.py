"""Two layers on one basis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank, rank_step
from eckart.compressors.contract import Fitted, Members, compressor, together
from eckart.linalg.low_rank import balanced, damped, project
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.low_rank import low_rank_cost
from eckart.structures.shared import Shared


@compressor(
    "basis-sharing",
    paper="Wang 2024, arXiv 2410.03765",
    expression="Chain(Dense, Shared)",
    needs=(Need.INPUT_SECOND_MOMENT,),
)
def basis_sharing(weight: Tensor, statistics: Statistics) -> LowRank:
    """Two consecutive layers on one basis for their inputs, each with coefficients of its own.

    [W_1; W_2] ~ [A_1; A_2] B, the best of rank r in the input metric of both layers together (section 3.2). Given the
    basis, the coefficients of each layer are then the best ones in the metric of its own inputs,
    A_i = W_i C_i B^T (B C_i B^T)^-1, which the reference has as an option. Matrices that write to the residual stream
    are not shared: for them, as for all others in no pair, this is the best low rank in the input metric.
    """
    return fit_low_rank(weight, Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT)))


def coefficients(weight: Tensor, basis: Tensor, root: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the best coefficients of a layer in a nested basis are made of.

    With (B G)^T = Q R, G G^T = C: the best approximation of W G by r rows of the basis is W G Q_r Q_r^T, nested in r.
    A row of the basis that depends on those before it gets no coefficients.

    Args:
        weight: W (out, in), float64.
        basis: B (k, in), float64, k <= in.
        root: G (in, in), of full rank.

    Returns:
        W G Q (out, k); R (k, k), upper triangular; squared error of W for r = 0, ..., k, float64, (k + 1,).
    """
    weighted = weight @ root
    q, r = torch.linalg.qr((basis @ root).T)
    diagonal = r.diagonal().abs()
    independent = diagonal > 1e-12 * diagonal.amax()
    r = r + torch.diag(torch.where(independent, 0.0, 1.0 - r.diagonal()))
    inner = weighted @ q * independent
    gains = inner.square().sum(0)
    rest = (weighted.square().sum() - gains.cumsum(0)).clamp_min(0)
    return inner, r, torch.cat([weighted.square().sum()[None], rest])


class SharedLayers:
    """Ranks of the common basis as candidates; see `eckart.compressors.contract.JointFamily`."""

    def __init__(self, members: Members) -> None:
        moments = [damped(s.get(Need.INPUT_SECOND_MOMENT), 1e-6) for s in members.statistics]
        stacked = torch.cat([w.double() for w in members.weights])
        best = project(stacked, Metric(right=torch.stack(moments).mean(0)))
        nested = best.synthesis, best.analysis.T @ stacked
        left, right = nested if best.left else (stacked @ best.analysis, best.synthesis.T)
        self._dtype = members.weights[0].dtype
        self._out, self._columns = members.weights[0].shape
        self._basis = balanced(left, right)[1]
        self._parts = [
            coefficients(w.double(), self._basis, torch.linalg.cholesky(m) if m.ndim == 2 else m.sqrt().diag())
            for w, m in zip(members.weights, moments, strict=True)
        ]

    @cached_property
    def sizes(self) -> Sequence[int]:
        """The ranks that cost less than the dense matrices."""
        step = rank_step(self._out, self._columns)
        dense = len(self._parts) * self._out * self._columns
        return [r for r in range(step, len(self._basis) + 1, step) if self._cost(r).parameters < dense]

    def _cost(self, rank: int) -> Cost:
        count, size = len(self._parts), self._dtype.itemsize
        once = low_rank_cost(count * self._out, self._columns, rank, size)
        return once + Cost(0, 0, (count - 1) * rank * self._columns)

    @property
    def costs(self) -> Sequence[Cost]:
        return [self._cost(rank) for rank in self.sizes]

    @property
    def errors(self) -> Tensor:
        return sum((errors for *_, errors in self._parts), torch.zeros(1))[list(self.sizes)]

    @property
    def zero_error(self) -> float:
        return sum(float(errors[0]) for *_, errors in self._parts)

    def build(self, size: int) -> list[Fitted]:
        basis = Dense(self._basis[:size].to(self._dtype).contiguous())
        fitted = []
        for i, (inner, r, errors) in enumerate(self._parts):
            own = torch.linalg.solve_triangular(r[:size, :size], inner[:, :size].T, upper=True).T
            parts = Dense(own.to(self._dtype).contiguous()), Shared(basis) if i else basis
            fitted.append(Fitted(Chain(*parts), None, float(errors[size])))
        return fitted


@together("basis-sharing", "layers")
def shared_layers(members: Members) -> SharedLayers:
    """The pair, its metric the mean of the members' input moments."""
    return SharedLayers(members)
