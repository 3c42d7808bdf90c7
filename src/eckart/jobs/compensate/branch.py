"""The branch of low rank beside one compressed matrix, and what it gives back."""

from __future__ import annotations

import copy
import statistics as _statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.compressors._low_rank import LowRank
from eckart.compressors.eora import branches
from eckart.errors import Refused
from eckart.metrics import Metric
from eckart.models.modules import StructuredLinear
from eckart.models.sites import Site
from eckart.statistics import Need, Statistics
from eckart.structures import Shared, StructuredMatrix, Sum


@dataclass(frozen=True)
class Place:
    """A compressed linear layer and what it was.

    Attributes:
        name: the module's dotted name.
        module: holds What (out, in) and a bias or none.
        dense: the linear layer of the dense model, with W and a bias or none.
    """

    name: str
    module: StructuredLinear
    dense: Site

    @property
    def most(self) -> int:
        """The largest rank of a branch with which the matrix takes fewer bytes than a dense one."""
        structure = self.module.structure
        (out, columns), size = structure.shape, structure.dtype.itemsize
        spare = out * columns * size - structure.cost().bytes - 1
        return max(0, min(out, columns, spare // ((out + columns) * size)))

    @property
    def rebiased(self) -> bool:
        """Whether the compression changed the bias."""
        old, new = self.dense.bias, self.module.bias
        if old is None or new is None:
            return old is not new
        return not torch.equal(old.to(new), new)


@dataclass(frozen=True)
class Added:
    """What one matrix was given for what its compression lost.

    Attributes:
        rank: of the branch; 0 for none.
        before: mean squared error of the layer's output over the calibration tokens, relative to that of the zero
            matrix, without the branch.
        after: the same with the branch.
        bias: whether the layer's bias was fitted again.
    """

    rank: int
    before: float
    after: float
    bias: bool


LOOKED_AT = 8
"""Matrices at most that are compared to see whether a dense model can be what a compressed one was made from."""


@torch.no_grad()
def check_kinship(places: Sequence[Place]) -> None:
    """Raises Refused where the compressed matrices are no nearer to the dense ones than zeros would be.

    A compression is never that bad, so that the dense model is another one of the same shapes. One that was trained on
    from the same start is too near to be told apart.
    """
    some = places[:: -(-len(places) // LOOKED_AT)]
    errors = []
    for place in some:
        w = place.dense.weight.cpu().double()
        errors.append(float((w - exact(place.module.structure)).norm() / w.norm()) if w.any() else 0.0)
    if _statistics.median(errors) >= 1:
        raise Refused(
            f"the compressed matrices are no nearer to the dense ones than zeros are (a relative error of "
            f"{_statistics.median(errors):.2f}): name the model that was compressed, not another of its shapes; what "
            "`compress --rotate` turned first cannot be compensated, for its matrices are others"
        )


def branches_of(place: Place, statistics: Statistics, metric: str) -> LowRank:
    """The best branches of all ranks; where the compression changed the bias it is fitted too."""
    lost = place.dense.weight.cpu().double() - exact(place.module.structure)
    return branches(lost, statistics, metric, rebiased=place.rebiased)


@torch.no_grad()
def compensated(
    place: Place, statistics: Statistics, metric: str, rank: int
) -> tuple[StructuredMatrix, Tensor | None, Added]:
    """The best branch of a rank beside a matrix: what replaces its structure and its bias, and what that gains."""
    structure: StructuredMatrix = place.module.structure
    bias: Tensor | None = place.module.bias
    before = after = output_error(place.dense, structure, bias, statistics)
    if rank:
        fitted = branches_of(place, statistics, metric).build(rank)
        if fitted.bias is not None:
            own = place.dense.bias
            bias = (fitted.bias if own is None else own.cpu().double() + fitted.bias).to(structure.dtype)
            bias = bias.to(structure.device)
        structure = Sum(structure, fitted.structure.to(structure.device, structure.dtype))
        after = output_error(place.dense, structure, bias, statistics)
    return structure, bias, Added(rank, before, after, bias is not place.module.bias)


def output_error(dense: Site, structure: StructuredMatrix, bias: Tensor | None, statistics: Statistics) -> float:
    """E||(W - What) x + b - bhat||^2 / E||W x||^2, E over the calibration tokens."""
    difference = dense.weight.cpu().double() - exact(structure)
    shift = torch.zeros(len(difference), dtype=torch.float64)
    for sign, each in ((1, dense.bias), (-1, bias)):
        shift += 0 if each is None else sign * each.cpu().double()
    metric = Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT))
    error = metric.error(difference) + shift @ (2 * (difference @ statistics.get(Need.INPUT_MEAN)) + shift)
    whole = float(metric.error(dense.weight.cpu().double()))
    return max(0.0, float(error)) / whole if whole > 0 else 0.0


def exact(structure: StructuredMatrix) -> Tensor:
    """The matrix in float64, in the memory of the CPU; rounded on the way only where another module holds a part."""
    if any(isinstance(part, Shared) for part in structure.modules()):
        return structure.to_dense().cpu().double()
    return copy.deepcopy(structure).cpu().double().to_dense()
