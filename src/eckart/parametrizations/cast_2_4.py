"""Two of every four weights of a trained matrix are pulled to zero bit by bit, the others make up for it by scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.parametrizations._nm import pattern
from eckart.parametrizations.contract import Layer, Schedule, Step, Structures, parametrization
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain, Sum
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal
from eckart.structures.permutation import Selection
from eckart.structures.semisparse import SemiSparse

N, M = 2, 4
EVERY = 10
"""Steps between two choices of the entries that stay."""


class Sparsifying(Schedule):
    """What does not stay gets an L1 pull instead of its gradient, more and more; `state` holds what stays."""

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        decay: float = 1e-4,
        pull: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= decay < math.inf:
            raise Refused(f"decay={decay} must be finite and at least 0")
        self.decay, self.pull = decay, pull
        self.weights: dict[str, nn.Parameter] = {
            f"{name}.{path}": part.weight
            for name, structure in structures.items()
            for path, part in structure.named_modules()
            if isinstance(part, Dense)
        }
        self.state = {name: pattern(weight, N, M) for name, weight in self.weights.items()}

    @torch.no_grad()
    def before_step(self, step: Step) -> None:
        if step.done % EVERY == 0:
            self.state = {name: pattern(weight, N, M) for name, weight in self.weights.items()}

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        a = step.done / step.steps
        for name, weight in self.weights.items() if self.pull else ():
            if weight.grad is not None:
                pulled = (1 - a) * weight.grad + a * self.decay * weight.sign()
                weight.grad.copy_(torch.where(self.state[name], weight.grad, pulled))

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if step.done + 1 == step.steps:
            for weight in self.weights.values():
                weight.masked_fill_(~pattern(weight, N, M), 0)


def two_of_four(structure: StructuredMatrix) -> StructuredMatrix:
    """What is left, scales multiplied in."""
    return SemiSparse.from_dense(structure.to_dense(), N, M)


@parametrization(
    "cast-2-4",
    paper="Huang et al. 2025, arXiv 2509.25996",
    expression="Sum(Chain(Diagonal*, Dense*, Selection), Chain(Diagonal*, Dense*, Selection))",
    schedule=Sparsifying,
    fold=two_of_four,
)
def cast_2_4(layer: Layer, *, scaling: bool = True) -> StructuredMatrix:
    """A trained matrix becomes 2:4 sparse: the smaller two of four are pulled to zero, and each half row has a scale.

    The model computes with all of W until the end. Every 10 steps the two largest of four neighbours are those that
    stay; the gradient of the others is (1 - a) g + a `decay` sign(w), a growing from 0 to 1 over all steps, and what is
    left of them goes after the last. Each half row of W has a scale that trains (`scaling`), multiplied in at the end;
    a row has one where its halves are no whole groups of four.

    The authors' optimizer, which mixes the pull into Adam's first moment, is `eckart.optim.AdamS`; with it say
    `pull=False`, and gradients stay as they are. Otherwise the pull is mixed into the gradient, so that any optimizer
    takes it, a departure: the second moment has its own say. With Adam an entry moves by about the rate a step near the
    end, whatever `decay` is: rates that fall to zero, and summed up exceed |w|, are needed. Distillation from the dense
    start is a matter of the loss, which is the loop's.
    """
    weight = layer.weight
    out, columns = weight.shape
    ones = weight.new_ones
    halves = 2 if scaling and columns % (2 * M) == 0 else 1
    if halves == 1:
        return Chain(Diagonal(ones(out)), Dense(weight.clone())) if scaling else Dense(weight.clone())
    places: list[Tensor] = list(torch.arange(columns, device=weight.device).chunk(halves))
    return Sum(
        *(
            Chain(Diagonal(ones(out)), Dense(weight[:, index].clone()), Selection(index, size=columns))
            for index in places
        )
    )
