"""Pruning while a frozen matrix is fine-tuned, by scores that are low-rank, a number a row and a number a column."""

from __future__ import annotations

import math

import torch

from eckart.errors import Refused
from eckart.parametrizations._pruning import masked
from eckart.parametrizations.contract import Layer, Schedule, Step, Structures, check_share, parametrization
from eckart.structures.compose import Chain, Sum
from eckart.structures.dense import Dense
from eckart.structures.low_rank import low_rank
from eckart.structures.scaled import Scaled
from eckart.structures.scored import Scored

BEGIN, END = 0.1, 0.7
"""The number of entries falls between these parts of the steps."""


class Thinning(Schedule):
    """All entries act for a tenth of the steps; then fewer, along a cubic, down to `keep` after 70 % of the steps."""

    def __init__(self, structures: Structures, steps: int, generator: torch.Generator, *, keep: float = 0.5) -> None:
        super().__init__()
        self.keep, self.begin, self.end = check_share("keep", keep), int(BEGIN * steps), int(END * steps)
        self.matrices = [each for each in structures.values() if isinstance(each, Scored)]

    def share(self, done: int) -> float:
        """What acts after so many steps."""
        if done <= self.begin < self.end:
            return 1.0
        left = max(0.0, 1 - (done - self.begin) / max(1, self.end - self.begin)) ** 3
        return self.keep + (1 - self.keep) * left

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        for each in self.matrices:
            out, columns = each.shape
            each.kept.fill_(max(1, round(self.share(step.done + 1) * out * columns)))


@parametrization(
    "pst",
    paper="Li et al. 2022, arXiv 2205.11005",
    expression="Scored(Sum(Dense, Chain(Dense*, Dense*)), Sum(Chain(Dense*, Dense*), Chain(Dense*, Dense), "
    "Chain(Dense, Dense*)))",
    schedule=Thinning,
    fold=masked,
)
def pst(layer: Layer, *, rank: int = 8, beta: float = 1.0, alpha1: float = 1.0, alpha2: float = 1.0) -> Scored:
    """M * (W + beta U V) with W frozen, M the largest of |W + beta U V| + alpha1 A B + alpha2 (R 1^T + 1 C^T).

    U, V, A, B of `rank` and R, C, a number for each row and column, train: rank (out + in) twice and out + in numbers.
    The gradient of the scores is that of M, as if it were the scores; fewer and fewer entries act, until `keep` of them
    do. U and A start normal, all else at zero, so that the matrix is W at first. What is left in the end is a masked
    matrix, nothing beside it. `alpha1=alpha2=0` is the magnitude of what is fine-tuned, a LoRA below the mask.

    Biases train here unless their gradients are switched off, as the authors do. Scores are on the scale of |W|, and
    their factors are not: with Adam what A B gains in a step does not depend on W, so `alpha1` and `alpha2` are to be
    chosen with the rate.
    """
    if not 1 <= rank <= min(layer.shape):
        raise Refused(f"rank={rank} is not in 1..{min(layer.shape)}, what a matrix {layer.shape} allows")
    for name, value in (("beta", beta), ("alpha1", alpha1), ("alpha2", alpha2)):
        if not math.isfinite(value) or value < 0:
            raise Refused(f"{name}={value} must be finite and at least 0")
    out, columns = layer.shape
    weight = layer.weight
    zero = weight.new_zeros
    rows, across = (Dense(torch.ones_like(each)).requires_grad_(False) for each in (zero(1, columns), zero(out, 1)))
    change = low_rank(layer.normal(out, rank, variance=1.0), zero(rank, columns))
    scores = low_rank(layer.normal(out, rank, variance=1.0), zero(rank, columns))
    lines = Sum(Chain(Dense(zero(out, 1)), rows), Chain(across, Dense(zero(1, columns))))
    return Scored(
        Sum(Dense(weight.clone()).requires_grad_(False), Scaled(change, scale=beta)),
        Sum(Scaled(scores, scale=alpha1), Scaled(lines, scale=alpha2)),
        torch.tensor([out * columns], device=weight.device),
    )
