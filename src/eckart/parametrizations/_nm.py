"""Dense matrices that act as if some of every few neighbours were less, or zero: N:M patterns while they train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.parametrizations._pruning import weights_of
from eckart.parametrizations.contract import Schedule, Step, Structures
from eckart.structures.base import StructuredMatrix
from eckart.structures.semisparse import SemiSparse

N, M = 1, 8
"""The pattern where none is said."""


def pattern(weight: Tensor, n: int, m: int) -> Tensor:
    """The n largest of every m neighbours in a row: bool, of the shape of W. The last group may be shorter."""
    size = weight.shape[1]
    padded = F.pad(weight.detach().abs(), (0, -size % m), value=-1.0)
    groups = padded.view(len(weight), -1, m)
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(n, -1).indices, True)
    return kept.flatten(1)[:, :size]


def check_pattern(n: int, m: int) -> None:
    """Refused unless 1 <= n <= m and 2 <= m <= 256, what `SemiSparse` can store."""
    if not 2 <= m <= 256 or not 1 <= n <= m:
        raise Refused(f"n={n} of every m={m}: m must be in 2..256 and n in 1..m")


def semisparse(structure: StructuredMatrix, *, n: int = N, m: int = M) -> StructuredMatrix:
    """n values of every m neighbours, and where they stand."""
    return SemiSparse.from_dense(structure.to_dense(), n, m)


class Substitution(Schedule):
    """The model computes with `factor` * W in the place of W; W itself is what the optimizer moves.

    After the last step what lies outside the pattern n:m of W is zero for good.
    """

    def __init__(
        self, structures: Structures, steps: int, generator: torch.Generator, *, n: int = N, m: int = M
    ) -> None:
        super().__init__()
        check_pattern(n, m)
        self.n, self.m, self.weights = n, m, weights_of(structures)
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def factor(self, weight: Tensor, step: Step) -> Tensor:
        """What W is multiplied by, of its shape."""
        raise NotImplementedError

    def slope(self, weight: nn.Parameter, gradient: Tensor, factor: Tensor) -> Tensor:
        """What the optimizer takes for dloss/dW, of that by factor * W."""
        raise NotImplementedError

    @torch.no_grad()
    def before_step(self, step: Step) -> None:
        for name, weight in self.weights.items():
            factor = self.factor(weight, step)
            self._kept[name] = weight.detach().clone(), factor
            weight.mul_(factor)

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        for name, (own, factor) in self._kept.items():
            weight = self.weights[name]
            weight.copy_(own)
            if weight.grad is not None:
                weight.grad.copy_(self.slope(weight, weight.grad, factor))
        self._kept = {}

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if step.done + 1 == step.steps:
            for weight in self.weights.values():
                weight.masked_fill_(~pattern(weight, self.n, self.m), 0)
