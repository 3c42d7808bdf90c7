"""The family of sums of one matrix: every number of terms from one decomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from eckart.compressors.contract import Fitted
from eckart.errors import Refused
from eckart.structures.base import Cost, StructuredMatrix

MOST = 32
"""Candidates of a matrix are at most so many, evenly spread."""


@dataclass
class Terms:
    """Sums of the first 1, 2, ... terms of a decomposition as candidates; see `eckart.compressors.contract.Family`.

    Attributes:
        weight: W (out, in).
        tails: squared error with 0, 1, ..., k terms, float64, (k + 1,); the last one is zero.
        cost: of a number of terms; grows with it.
        assemble: the structure of a number of terms, in the dtype of the weight.
    """

    weight: Tensor
    tails: Tensor
    cost: Callable[[int], Cost]
    assemble: Callable[[int], StructuredMatrix]

    @cached_property
    def sizes(self) -> Sequence[int]:
        """Numbers of terms that cost fewer bytes than the dense matrix, `MOST` at most."""
        dense = self.weight.numel() * self.weight.element_size()
        paying = sum(self.cost(terms).bytes < dense for terms in range(1, len(self.tails)))
        step = max(1, -(-paying // MOST))
        return range(step, paying + 1, step)

    @property
    def costs(self) -> Sequence[Cost]:
        return [self.cost(terms) for terms in self.sizes]

    @property
    def errors(self) -> Tensor:
        return self.tails[list(self.sizes)]

    @property
    def zero_error(self) -> float:
        """The squared norm of W."""
        return float(self.tails[0])

    def build(self, size: int) -> Fitted:
        """The candidate of `size` terms, also where it does not pay: with all of them it is W."""
        if not 1 <= size < len(self.tails):
            raise Refused(f"a matrix of shape {tuple(self.weight.shape)} has 1 to {len(self.tails) - 1} terms here")
        return Fitted(self.assemble(size), None, float(self.tails[size]))
