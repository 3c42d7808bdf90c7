"""N:M sparsity from the start by straight-through gradients, what is outside the pattern being pulled to zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.parametrizations._nm import M, N, Substitution, pattern, semisparse
from eckart.parametrizations.contract import Layer, Step, Structures, parametrization
from eckart.structures.dense import Dense


class Refined(Substitution):
    """Forward M * W; backward g + lambda (1 - M) * W for all entries."""

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        n: int = N,
        m: int = M,
        penalty: float = 2e-4,
    ) -> None:
        super().__init__(structures, steps, generator, n=n, m=m)
        if not 0 <= penalty < float("inf"):
            raise Refused(f"penalty={penalty} must be finite and at least 0")
        self.penalty = penalty

    def factor(self, weight: Tensor, step: Step) -> Tensor:
        return pattern(weight, self.n, self.m).to(weight.dtype)

    def slope(self, weight: nn.Parameter, gradient: Tensor, factor: Tensor) -> Tensor:
        return gradient + self.penalty * (1 - factor) * weight


@parametrization(
    "sr-ste",
    paper="Zhou et al. 2021, arXiv 2102.04010",
    expression="SemiSparse*",
    schedule=Refined,
    fold=semisparse,
    limit={"n": 8, "m": 8},
)
def sr_ste(layer: Layer) -> Dense:
    """The model computes with the `n` largest of every `m` neighbours in a row, from the first step to the last.

    W trains dense: the gradient by M * W is taken for that by W ("straight through"), for entries outside the pattern
    too, and `penalty` W is added there, so that they do not keep trading places with those inside. `penalty=0` is the
    plain straight-through estimator. Between steps the model holds the dense W; after the last one it holds M * W.
    """
    return Dense(layer.weight.clone())
