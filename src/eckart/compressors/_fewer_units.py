"""The family of modules with fewer units inside: every number of units from one order of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.compressors._low_rank import rank_step
from eckart.compressors.contract import Fitted, Members
from eckart.linalg.low_rank import damped
from eckart.statistics.moments import covariance
from eckart.statistics.needs import Need
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.permutation import Selection

Fits = list[tuple[Chain, Tensor | None]]
"""Of each matrix of a module, the structure and what is added to the bias of its layer."""

INDEX_BYTES = 4


def remainders(gains: Tensor) -> Tensor:
    """What is lost with the first k of some gains, k = 0, ..., n: (n + 1,), the last one zero."""
    return torch.cat([gains.flip(0).cumsum(0).flip(0), gains.new_zeros(1)])


def centred(members: Members) -> list[tuple[Tensor, Tensor]]:
    """Covariance, (in, in), and mean, (in,), of the inputs of each member; float64."""
    found = []
    for statistics in members.statistics:
        known = covariance(statistics)
        found.append((known.diag() if known.ndim == 1 else known, statistics.get(Need.INPUT_MEAN)))
    return found


def moments(members: Members) -> list[tuple[Tensor, Tensor]]:
    """Second moment, (in, in), and mean, (in,), of the inputs of each member; float64."""
    found = []
    for statistics in members.statistics:
        known = statistics.get(Need.INPUT_SECOND_MOMENT).double()
        found.append((known.diag() if known.ndim == 1 else known, statistics.get(Need.INPUT_MEAN).double()))
    return found


def new_bias(members: Members, index: int) -> int:
    """Numbers of a bias that the layer of a member has not had yet."""
    return 0 if members.biases[index] is not None else len(members.weights[index])


def definite(moment: Tensor, relative: float = 1e-6) -> Tensor:
    """A second moment with `relative` times its mean eigenvalue on the diagonal, more where rounding made it negative.

    The identity for a zero moment.
    """
    raised = damped(moment, relative)
    if torch.linalg.cholesky_ex(raised).info.item() != 0:
        raised.diagonal().add_(2 * torch.linalg.eigvalsh(raised)[0].abs())
    return raised


def kept_rows(weight: Tensor, index: Tensor, size: int, dtype: torch.dtype) -> Chain:
    """A matrix of `size` outputs: these rows at these places, zeros elsewhere."""
    rows = Dense(weight.to(dtype).contiguous())
    return Chain(Selection(index, size=size, adjoint=True), rows)


def kept_columns(weight: Tensor, index: Tensor, size: int, dtype: torch.dtype) -> Chain:
    """A matrix that reads these of `size` inputs."""
    return Chain(Dense(weight.to(dtype).contiguous()), Selection(index, size=size))


@dataclass(frozen=True)
class Part:
    """One matrix of a module whose units are kept or not.

    Attributes:
        length: entries of a unit, the other dimension of the matrix.
        units: rows or columns for each that is counted.
        bias: numbers of a new bias, see `new_bias`.
    """

    length: int
    units: int = 1
    bias: int = 0

    def cost(self, kept: int, itemsize: int) -> Cost:
        values, indices = kept * self.units * self.length, INDEX_BYTES * kept * self.units
        return Cost(values + self.bias, (values + self.bias) * itemsize + indices, values)


class Units:
    """Numbers of kept units as candidates; see `eckart.compressors.contract.JointFamily`.

    Args:
        parts: the matrices.
        losses: squared error with k units kept, k = 0, ..., n; float64.
        whole: whether k units can be kept, (n + 1,); None for any.
        itemsize: bytes of an entry.
        fit: structures and biases with k units kept.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        losses: Tensor,
        itemsize: int,
        fit: Callable[[int], Fits],
        whole: Tensor | None = None,
    ) -> None:
        full = len(losses) - 1
        step = rank_step(full, full)
        dense = sum(full * part.units * part.length for part in parts)
        self._parts, self._losses, self._itemsize, self._fit = parts, losses, itemsize, fit
        possible = [k for k in range(step, full, step) if whole is None or whole[k]]
        self.sizes: Sequence[int] = [k for k in possible if self._cost(k).parameters < dense]

    def _cost(self, kept: int) -> Cost:
        first, *others = (part.cost(kept, self._itemsize) for part in self._parts)
        return sum(others, first)

    @property
    def costs(self) -> Sequence[Cost]:
        return [self._cost(size) for size in self.sizes]

    @property
    def errors(self) -> Tensor:
        return self._losses[list(self.sizes)]

    @property
    def zero_error(self) -> float:
        return float(self._losses[0])

    def build(self, size: int) -> list[Fitted]:
        """The candidate of a size; its error is entered for the last matrix, at whose output it is measured."""
        fitted = self._fit(size)
        errors = [0.0] * (len(fitted) - 1) + [float(self._losses[size])]
        return [Fitted(structure, bias, error) for (structure, bias), error in zip(fitted, errors, strict=True)]


class Even:
    """Modules of several layers that keep as many units each, as candidates: `Units` of the same sizes."""

    def __init__(self, layers: Sequence[Units]) -> None:
        self._layers = layers
        self.sizes: Sequence[int] = layers[0].sizes

    @property
    def costs(self) -> Sequence[Cost]:
        return [sum(others, first) for first, *others in zip(*(layer.costs for layer in self._layers), strict=True)]

    @property
    def errors(self) -> Tensor:
        return torch.stack([layer.errors for layer in self._layers]).sum(0)

    @property
    def zero_error(self) -> float:
        return sum(layer.zero_error for layer in self._layers)

    def build(self, size: int) -> list[Fitted]:
        return [fitted for layer in self._layers for fitted in layer.build(size)]
