"""The family of low-rank candidates of one matrix: every rank from one decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from eckart.compressors.contract import Fitted
from eckart.errors import Refused
from eckart.linalg.low_rank import Projection, balanced, project, skeleton
from eckart.metrics import Metric
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
        """The ranks that hold fewer numbers than the dense matrix, and no more bytes."""
        return list(self._costs)

    @property
    def costs(self) -> Sequence[Cost]:
        every = self._costs
        return [every[rank] for rank in self.sizes]

    @property
    def _costs(self) -> dict[int, Cost]:
        found, most = rank_costs(self.weight, self.interpolative, self.mean), len(self.projection.errors) - 1
        return {rank: cost for rank, cost in found.items() if rank <= most}

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

    def build(self, size: int) -> Fitted:
        """The candidate of rank `size`: error `errors` of the projection at that rank, up to rounding of the dtype."""
        if not 1 <= size <= min(self.weight.shape):
            raise Refused(f"a matrix of shape {tuple(self.weight.shape)} has ranks 1 to {min(self.weight.shape)}")
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


def fit_low_rank(weight: Tensor, metric: Metric, *, interpolative: bool = False, mean: Tensor | None = None) -> LowRank:
    """The low-rank family that is optimal in a metric, at every rank."""
    return LowRank(weight, project(weight, metric), interpolative, mean)


def rank_costs(weight: Tensor, interpolative: bool, mean: Tensor | None) -> dict[int, Cost]:
    """The cost of the ranks that hold fewer numbers than the dense matrix, and no more bytes; as for `LowRank`."""
    out, columns = weight.shape
    dense, step = Cost(out * columns, out * columns * weight.element_size(), 0), rank_step(out, columns)
    price = interpolative_cost if interpolative else low_rank_cost

    def cost(rank: int) -> Cost:
        return price(out, columns, rank, weight.element_size()) + bias_cost(weight, mean)

    def pays(rank: int) -> bool:
        found = cost(rank)
        return found.parameters < dense.parameters and found.bytes <= dense.bytes

    ranks = [rank for rank in range(step, min(out, columns) + 1, step) if pays(rank)]
    return {rank: cost(rank) for rank in ranks or [rank for rank in (1,) if pays(rank)]}


def bias_cost(weight: Tensor, mean: Tensor | None) -> Cost:
    """The cost of the bias that a weight (out, in) gets from E[x], nothing where that is None."""
    out = 0 if mean is None else len(weight)
    return Cost(out, out * weight.element_size(), 0)
