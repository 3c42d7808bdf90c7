"""Experts of a mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """How the matrices of a mixture of experts go together.

    Attributes:
        count: number of experts; each has as many matrices as the others, the last of which writes its outputs.
        inner: takes the outputs of an expert's other matrices and gives the input of its last one.
    """

    count: int
    inner: Callable[[Sequence[Tensor]], Tensor]
