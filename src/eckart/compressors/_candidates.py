"""Candidates for a matrix, or for a group of them: built, sized, and fitted when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.structures.base import Cost, StructuredMatrix


@dataclass(frozen=True)
class Fitted:
    """A candidate that was built.

    Attributes:
        structure: the matrix that stands in for W.
        bias: (out,), added to the layer's own: `structure(x) + bias` replaces `W x`; None for none.
        error: squared error in the method's metric.

    Raises:
        Refused: the dtype cannot hold it, or the error is not finite.
    """

    structure: StructuredMatrix
    bias: Tensor | None
    error: float

    def __post_init__(self) -> None:
        own = [] if self.bias is None else [self.bias]
        for tensor in (*self.structure.parameters(), *own):
            # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
            if not (torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all()):
                raise Refused(
                    f"the approximation has entries beyond the largest number of {tensor.dtype}, "
                    f"{torch.finfo(tensor.dtype).max:.3g}: scale the matrix down, or use a dtype of more range"
                )
        if not math.isfinite(self.error):
            raise Refused("the squared error of the approximation overflows float64: scale the matrix down")


class Sized(Protocol):
    """Candidates from small to large; of matrices that are fitted together, costs and errors are sums.

    Attributes:
        sizes: what distinguishes the candidates, in ascending order of their bytes; see `SIZES`.
        errors: squared error of each in the method's metric, float64, (len(sizes),), non-increasing.
        costs: cost of each, known before it is built.
        zero_error: squared error of the zero matrix, what errors are relative to.
    """

    @property
    def sizes(self) -> Sequence[int]: ...

    @property
    def errors(self) -> Tensor: ...

    @property
    def costs(self) -> Sequence[Cost]: ...

    @property
    def zero_error(self) -> float: ...


class Family(Sized, Protocol):
    """The candidates of one method for one matrix."""

    def build(self, size: int) -> Fitted:
        """The candidate of that size, in the dtype of the weight it was fitted to."""


class JointFamily(Sized, Protocol):
    """The candidates of one method for matrices that are fitted together."""

    def build(self, size: int) -> Sequence[Fitted]:
        """The candidate of that size, one `Fitted` for each matrix; their errors sum up to that of the candidate."""


def built(family: Family | JointFamily, size: int) -> Sequence[Fitted]:
    """The candidate of that size, one `Fitted` for each matrix."""
    found = family.build(size)
    return [found] if isinstance(found, Fitted) else found


class Lazy(Family, Protocol):
    """A family that fits its candidates one by one, and judges many of them by a few.

    Attributes:
        known: squared error of the sizes that were measured.
    """

    known: dict[int, float]

    def measure(self, size: int) -> None:
        """Enters the error of a size in `known`."""

    def error_of(self, dense: Tensor) -> float:
        """Squared error of a matrix (out, in) in the place of W."""

    def rounding_error(self, structure: StructuredMatrix) -> float:
        """What a structure that rounds its inputs adds to the squared error of its matrix."""

    def estimates(self) -> Tensor:
        """The errors of all sizes judged from those in `known`; measures a few sizes where none is known."""


def lazy(family: Family | JointFamily) -> TypeGuard[Lazy]:
    return hasattr(family, "estimates")
