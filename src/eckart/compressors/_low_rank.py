"""The family of low-rank candidates of one matrix: every rank from one decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.compressors.contract import Fitted
from eckart.linalg.low_rank import Projection, project, skeleton
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.interpolative import Interpolative, interpolative_cost
from eckart.structures.low_rank import low_rank, low_rank_cost

HARDWARE_MULTIPLE = 8
"""Ranks are multiples of this where the matrix is large enough not to mind."""


def rank_step(out: int, columns: int) -> int:
    """What the ranks of a matrix (out, in) are multiples of."""
    return HARDWARE_MULTIPLE if min(out, columns) >= 16 * HARDWARE_MULTIPLE else 1


@dataclass
class LowRank:
    """Ranks of one matrix as candidates; see `eckart.compressors.contract.Family`.

    Attributes:
        weight: W (out, in).
        projection: the nested optima.
        interpolative: store r rows and the others as their combinations, r (out + in - r) numbers; else two factors,
            r (out + in).
        mean: E[x] (in,): the mean output of what is cut off becomes a bias; None for no bias.
    """

    weight: Tensor
    projection: Projection
    interpolative: bool = False
    mean: Tensor | None = None

    @property
    def sizes(self) -> Sequence[int]:
        """The ranks that cost less than the dense matrix."""
        out, columns = self.weight.shape
        step = rank_step(out, columns)
        top = len(self.projection.errors) - 1
        ranks = [r for r in range(step, top + 1, step) if self._cost(r).parameters < out * columns]
        return ranks or [r for r in (1,) if self._cost(r).parameters < out * columns]

    @property
    def costs(self) -> Sequence[Cost]:
        return [self._cost(rank) for rank in self.sizes]

    @property
    def errors(self) -> Tensor:
        return self.projection.errors[list(self.sizes)]

    @property
    def spectrum(self) -> Tensor:
        """Squared singular values of W in the metric, descending."""
        return -self.projection.errors.diff()

    @property
    def zero_error(self) -> float:
        """Squared error of the zero matrix in the metric: the squared norm of W."""
        return float(self.projection.errors[0])

    def _cost(self, rank: int) -> Cost:
        out, columns = self.weight.shape
        price = interpolative_cost if self.interpolative else low_rank_cost
        return price(out, columns, rank, self.weight.element_size()) + bias_cost(self.weight, self.mean)

    def build(self, size: int) -> Fitted:
        """The candidate of rank `size`: error `errors` of the projection at that rank, up to rounding of the dtype."""
        if not 1 <= size <= min(self.weight.shape):
            raise ValueError(f"a matrix of shape {tuple(self.weight.shape)} has ranks 1 to {min(self.weight.shape)}")
        left, right = self.projection.factors(self.weight, size)
        dtype = self.weight.dtype
        if self.interpolative:
            pivots, rest, rows = skeleton(left, right)
            structure: StructuredMatrix = Interpolative.from_pivots(pivots, rest.to(dtype), rows.to(dtype))
        else:
            structure = low_rank(*(t.to(dtype).contiguous() for t in balanced(left, right)))
        bias = None
        if self.mean is not None:
            mean = self.mean.double()
            bias = (self.weight.double() @ mean - left.double() @ (right.double() @ mean)).to(dtype)
        return Fitted(structure, bias, float(self.projection.errors[size]))


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with each pair of a column and a row of equal norm, so that neither overflows a short dtype."""
    a, b = left.double(), right.double()
    ratio = torch.linalg.vector_norm(b, dim=1) / torch.linalg.vector_norm(a, dim=0)
    s = torch.where((ratio > 0) & torch.isfinite(ratio), ratio, torch.ones_like(ratio)).sqrt()
    return a * s, b / s[:, None]


def fit_low_rank(weight: Tensor, metric: Metric, *, interpolative: bool = False, mean: Tensor | None = None) -> LowRank:
    """The low-rank family that is optimal in a metric, at every rank."""
    return LowRank(weight, project(weight, metric), interpolative, mean)


def covariance(statistics: Statistics) -> Tensor:
    """E[x x^T] - E[x] E[x]^T, (in, in), or its diagonal (in,) where only that of E[x x^T] was kept; float64."""
    mean, moment = statistics.get(Need.INPUT_MEAN), statistics.get(Need.INPUT_SECOND_MOMENT)
    return moment - mean.square() if moment.ndim == 1 else moment.addr(mean, mean, alpha=-1)


def bias_mean(statistics: Statistics) -> Tensor | None:
    """E[x] (in,), float64, from which a bias is made; None for a table of look-ups, which takes no bias."""
    return None if statistics.lookup else statistics.get(Need.INPUT_MEAN)


def bias_cost(weight: Tensor, mean: Tensor | None) -> Cost:
    """The cost of the bias that a weight (out, in) gets from E[x], nothing where that is None."""
    out = 0 if mean is None else len(weight)
    return Cost(out, out * weight.element_size(), 0)


def damped(moment: Tensor, relative: float = 1e-2) -> Tensor:
    """A second moment plus `relative` times its mean eigenvalue on the diagonal; the identity for a zero moment."""
    if moment.ndim == 1:
        level = moment.mean()
        return moment + relative * level if level > 0 else torch.ones_like(moment)
    level = moment.diagonal().mean()
    if not level > 0:
        return torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    raised = moment.clone()
    raised.diagonal().add_(relative * level)
    return raised
