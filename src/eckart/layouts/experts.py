"""Experts of a mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
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

    def outputs(self, weights: Sequence[Tensor], x: Tensor) -> Iterator[Tensor]:
        """The outputs (n, out) of each expert on inputs x (n, in), in at least float32; weights expert by expert."""
        roles = len(weights) // self.count
        for first in range(0, len(weights), roles):
            own = (w.to(torch.promote_types(w.dtype, torch.float32)) for w in weights[first : first + roles])
            *entering, leaving = own
            yield self.inner([x.to(w) @ w.T for w in entering]) @ leaving.T
