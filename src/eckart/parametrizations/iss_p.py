"""Weights that shrink a little in every step, as long as they are among the smallest."""

from __future__ import annotations

import torch

from eckart.errors import Refused
from eckart.parametrizations._pruning import least, masked, weights_of
from eckart.parametrizations.contract import Layer, Schedule, Step, Structures, check_share, parametrization
from eckart.structures.dense import Dense

PENALTY = 0.5
"""What the growing penalty ends with."""


class Shrinkage(Schedule):
    """Three parts of training: shrinking, a growing penalty, zeros; `state` holds which entries are to go."""

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        keep: float = 0.1,
        shrink: float = 0.95,
        penalty_from: float = 0.5,
        zero_from: float = 0.7,
    ) -> None:
        super().__init__()
        check_share("keep", keep)
        if not 0 <= shrink <= 1:
            raise Refused(f"shrink={shrink} is not in 0..1")
        if not 0 <= penalty_from <= zero_from <= 1:
            raise Refused(f"penalty_from={penalty_from} and zero_from={zero_from} are no shares in this order")
        self.shrink, self.penalty_from, self.zero_from = shrink, round(penalty_from * steps), round(zero_from * steps)
        self.weights = weights_of(structures)
        self.counts = {name: w.numel() - max(1, round(keep * w.numel())) for name, w in self.weights.items()}
        self.state = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in self.weights.items()}

    @torch.no_grad()
    def after_backward(self, step: Step) -> None:
        if self.penalty_from <= step.done < self.zero_from:
            part = (step.done + 1 - self.penalty_from) / (self.zero_from - self.penalty_from)
            for name, weight in self.weights.items():
                if weight.grad is not None:
                    weight.grad.add_(torch.where(self.state[name], weight, 0), alpha=PENALTY * part)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        done = step.done + 1
        for name, weight in self.weights.items():
            if done <= max(self.penalty_from, 1):
                self.state[name] = least(weight, self.counts[name])
            if done < self.penalty_from:
                weight.copy_(torch.where(self.state[name], weight * self.shrink, weight))
            if done >= min(self.zero_from, step.steps):
                weight.masked_fill_(self.state[name], 0)
                step.forget(weight, self.state[name])


@parametrization(
    "iss-p",
    paper="Wang et al. 2023, arXiv 2303.09650",
    expression="Masked*",
    schedule=Shrinkage,
    fold=masked,
    limit={"keep": 1.0},
)
def iss_p(layer: Layer) -> Dense:
    """Dense training in which the smallest entries of each matrix shrink by 0.95 in every step, and go in the end.

    Until `penalty_from` of all steps: w <- `shrink` w for the entries outside the `keep` largest |w| of their matrix,
    chosen anew after every step, so that an entry that the loss pulls on grows back. Then the choice stands, and a
    penalty lambda w, lambda growing from 0 to 0.5, is added to their gradients. From `zero_from` on they are zero.
    `shrink=0` is iterative hard thresholding; `shrink=1` with no penalty (`penalty_from` equal to `zero_from`) prunes a
    dense net once by magnitude. The authors give the parts of training in steps, and sample entries for the threshold.
    """
    return Dense(layer.weight.clone())
