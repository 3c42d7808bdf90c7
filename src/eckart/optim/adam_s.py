"""Adam with an L1 decay that grows on the entries that are to go, until a pattern of 2 of 4 is left."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.optim.contract import Matrix, MatrixOptimizer, optimizer

KEEP, OF = 2, 4
LARGE = 0.1
"""Of a matrix, in norm: more than that is no rest of what decayed."""


def pattern(weight: Tensor) -> Tensor:
    """Which two of every four neighbours in a row of W (m, n) have the largest |w|; bool (m, n)."""
    groups = weight.abs().reshape(-1, OF)
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.topk(KEEP, dim=1).indices, True)
    return kept.view(weight.shape)


@optimizer(
    "adam-s",
    paper="Huang et al. 2025, arXiv 2509.25996 (CAST)",
    expression="W <- W - lr u / (sqrt(E[u^2]) + eps), u = m where kept, else (1 - a) m + a decay sign(W), a = t / T",
    state="m and v (m, n), a bit (a byte) an entry",
)
class AdamS(MatrixOptimizer):
    """Adam that shrinks two of every four weights to zero: more and more of their step is a decay by their sign.

    Which two is looked for every `every` steps, by size. What v averages is the square of the step and not of the
    gradient. In the end u / sqrt(v) is the sign, whatever `decay` is, so that what is left of an entry is of the order
    of the last rates: lr has to fall to zero, and the sum of lr t / T has to be well above the weights. `finish()` sets
    to zero what is off the pattern then, and warns where that is more than a rest. It is the optimizer of CAST alone:
    neither its scales nor its distillation.

    Little loss at 2 of 4 is reproduced as far as 100 steps of a small Llama go, which learn little that could be lost:
    it is level with AdamW that keeps all. With its scales see `cast-2-4`.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: the rate.
        betas: what stays of m and of v in a step.
        eps: added to the root.
        weight_decay: decoupled, times lr.
        total: T, all steps of the run; `eckart train` says them.
        decay: of the entries that are to go, beside m.
        every: steps between two looks at the pattern.
        common: see `MatrixOptimizer`.
    """

    MOMENTS = ("m",)
    SQUARES = ("v",)
    LIMITS: ClassVar = {"total": (1, inf), "decay": (0, inf), "every": (1, inf)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        total: int = 7500,
        decay: float = 4e-7,
        every: int = 10,
        **common: Any,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "total": total,
            "decay": decay,
            "every": every,
        }
        super().__init__(params, options, common)

    def direction(self, matrix: Matrix) -> Tensor:
        grad, state, group = matrix.grad, matrix.state, matrix.group
        if grad.shape[1] % OF:
            raise Refused(
                f"a matrix of shape {tuple(grad.shape)} has no whole groups of {OF} columns: put it in a group with "
                "rule='adamw'"
            )
        if "kept" not in state or (matrix.step - 1) % group["every"] == 0:
            state["kept"] = pattern(matrix.weight)
        if "m" not in state:
            state["m"], state["v"] = torch.zeros_like(grad), torch.zeros_like(grad)
        share = min(1.0, matrix.step / group["total"])
        m = state["m"].lerp_(grad, 1 - group["betas"][0])
        leaving = (1 - share) * m + share * group["decay"] * matrix.weight.sign()
        moved = torch.where(state["kept"], m, leaving)
        v = state["v"].mul_(group["betas"][1]).addcmul_(moved, moved, value=1 - group["betas"][1])
        root = v.sqrt().mul_((1 - group["betas"][1] ** matrix.step) ** -0.5).add_(group["eps"])
        found: Tensor = moved / (1 - group["betas"][0] ** matrix.step) / root
        return found

    @torch.no_grad()
    def finish(self) -> None:
        """Sets to zero the entries of all its matrices that are off their last pattern.

        Warns where those are more than a tenth of the matrices in norm, which is then pruned and not decayed.
        """
        whole, gone, steps, total = 0.0, 0.0, 0, 0
        for group in self.param_groups:
            for parameter in group["params"]:
                matrices = self.state.get(parameter, {})
                parts = parameter if group["stacked"] and parameter.ndim > 2 else [parameter]
                for i, part in enumerate(parts):
                    if f"matrix{i}" in matrices:
                        before = float(part.float().square().sum())
                        part.mul_(matrices[f"matrix{i}"]["kept"].view(part.shape))
                        whole, gone = whole + before, gone + before - float(part.float().square().sum())
                        steps, total = max(steps, int(matrices["step"])), max(total, int(group["total"]))
        if gone > LARGE**2 * whole:
            warnings.warn(
                f"what adam-s sets to zero has {(gone / whole) ** 0.5:.0%} of the norm of its matrices: it had not "
                f"decayed, after {steps} steps of total={total}. total has to be the steps of the run, and the sum of "
                "lr t / total well above |w|",
                stacklevel=3,
            )
