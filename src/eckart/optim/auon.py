"""Momentum divided by the root mean square of hyperbolic cosines, which is one: SGD, or SGD of a fixed length."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from eckart.optim.contract import Matrix, MatrixOptimizer, optimizer


def cosh_root(matrix: Tensor, sharpness: float = 1.0) -> Tensor:
    """sqrt(mean cosh^2(sharpness G / ||G||)), a number: 1 + sharpness^2 / 2N of N entries, but for higher orders.

    The entries of G / ||G|| have a mean square of 1 / N, and cosh^2 x = 1 + x^2 + ..., whatever G is.
    """
    norm = torch.linalg.vector_norm(matrix)
    unit = matrix / torch.where(norm > 0, norm, 1.0)
    return (unit * sharpness).cosh().square().mean().sqrt()


@optimizer(
    "auon",
    paper="Maity 2025, arXiv 2509.24320",
    expression="W <- W - lr M / r, r = sqrt(mean cosh^2(gamma M / ||M||)) = 1 + O(1/N)",
    state="the momentum (m, n)",
)
class AuON(MatrixOptimizer):
    """Nesterov momentum over a number that is 1 + O(1 / mn) for any matrix: to all intents SGD with momentum.

    Two methods go by this name. `version="code"`, the published program, divides the momentum M by r = sqrt(mean
    cosh^2(gamma M / ||M||)), which is 1.0003 for 64 x 64 and 1.000004 for 512 x 512: SGD. `version="paper"` takes M /
    ||M||, times sqrt(max(1, m / n)), over r with gamma = 1: SGD with steps of a fixed length for each matrix. Neither
    changes the singular values of M but by one common factor; compare it with SGD before anything else.

    Comparable to Muon is not reproduced, because it is SGD by its program and normalised SGD by its text: in 100 steps
    of a small Llama both are behind AdamW, and 0.09 to 0.10 nats a token behind `muon`.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: the rate.
        weight_decay: decoupled, times lr.
        momentum: what stays of the average in a step.
        gamma: inside of cosh, of `version="code"`.
        version: "code" or "paper".
        common: see `MatrixOptimizer`.
    """

    MOMENTS = ("m",)
    LIMITS: ClassVar = {"momentum": (0, 1), "gamma": (0, inf)}
    CHOICES: ClassVar = {"version": ("code", "paper")}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.24,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        *,
        gamma: float = 1.5,
        version: str = "code",
        **common: Any,
    ) -> None:
        options = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "gamma": gamma, "version": version}
        super().__init__(params, options, common)

    def direction(self, matrix: Matrix) -> Tensor:
        grad, state, group = matrix.grad, matrix.state, matrix.group
        if "m" not in state:
            state["m"] = torch.zeros_like(grad)
        m = state["m"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(m, group["momentum"])
        if group["version"] == "code":
            return ahead / cosh_root(ahead, group["gamma"])
        norm = torch.linalg.vector_norm(ahead)
        adjusted = max(1, grad.shape[0] / grad.shape[1]) ** 0.5
        moved: Tensor = adjusted * ahead / (torch.where(norm > 0, norm, 1.0) * cosh_root(ahead))
        return moved
