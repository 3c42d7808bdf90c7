"""Adam with a decay of the weights that the moments do not see: what the others are held against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from eckart.optim._adam import adam
from eckart.optim.contract import Matrix, MatrixOptimizer, optimizer


@optimizer(
    "adamw",
    paper="Loshchilov and Hutter 2019, arXiv 1711.05101",
    expression="W <- (1 - lr decay) W - lr Adam(G)",
    state="m and v (m, n)",
)
class AdamW(MatrixOptimizer):
    """Adam on the gradient of every number by itself, and a decay of the weights beside it.

    What `torch.optim.AdamW` computes; here 16-bit weights keep what rounding takes from a step, and `bits=8` stores
    the moments in 8 bits.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: the rate.
        betas: what stays of the averages of G and of its square in a step.
        eps: added to the root of the latter.
        weight_decay: decoupled, times lr.
        common: see `MatrixOptimizer`.
    """

    MOMENTS = ("m",)
    SQUARES = ("v",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **common: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, common)

    def direction(self, matrix: Matrix) -> Tensor:
        return adam(matrix.grad, matrix.state, matrix.step, matrix.group["betas"], matrix.group["eps"])
