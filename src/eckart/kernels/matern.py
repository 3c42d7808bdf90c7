"""Matern kernels of half-integer smoothness."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._stationary import Stationary, chi_square
from eckart.kernels.contract import Example, kernel

SMOOTHNESS = (0.5, 1.5, 2.5)


def _profile_of_matern(a2: Tensor, half: int) -> Tensor:
    """p_half(a) e^-a at a = sqrt(a2), with p_0 = 1, p_1 = 1 + a, p_2 = 1 + a + a^2 / 3; half = -1 is e^-a / a.

    d/da2 of them is -1/2 p_-1 e^-a, -1/2 p_0 e^-a, -1/6 p_1 e^-a: no step divides by a where half is 1 or 2.
    """
    found: Tensor = _HalfInteger.apply(a2, half)  # type: ignore[no-untyped-call]
    return found


def _root(a2: Tensor) -> Tensor:
    """a, at most 1000, where e^-a is zero and polynomials of a are not infinite yet."""
    return a2.sqrt().clamp_max(1000.0)


class _HalfInteger(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a2: Tensor, half: int) -> Tensor:
        ctx.save_for_backward(a2)
        ctx.half = half
        a = _root(a2)
        if half == -1:
            return torch.where(a > 0, (-a).exp() / torch.where(a > 0, a, 1.0), 0.0)
        polynomial = (torch.ones_like(a), 1 + a, 1 + a + a.square() / 3)[half]
        return polynomial * (-a).exp()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (a2,) = ctx.saved_tensors
        if ctx.half == -1:  # d/da2 (e^-a / a) = -(1 + a) e^-a / (2 a^3), and 0 where the value is set to 0
            cube = torch.where(a2 > 0, a2, 1.0) ** 1.5
            return torch.where(a2 > 0, -g * _profile_of_matern(a2, 1) / (2 * cube), 0.0), None
        return g * (-0.5, -0.5, -1 / 6)[ctx.half] * _profile_of_matern(a2, ctx.half - 1), None


def _example(rng: np.random.Generator) -> Example:
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return Example(
        Matern(1.5, 1.2),
        rng.standard_normal((12, 3)),
        rng.standard_normal((5, 3)),
        (lambda x: x - 0.7, lambda x: x @ turn),
    )


@kernel(
    "matern",
    paper="Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eq. 4.14 to 4.17",
    gives="p(a) e^-a of a = sqrt(2 nu) |x - z| / l",
    example=_example,
    unmeasured="a formula; what is built on it is measured",
)
class Matern(Stationary):
    """Matern kernels: functions that are differentiable once for nu = 3/2, twice for 5/2, and not for 1/2.

    With a = sqrt(2 nu) |x - z| / l: e^-a, (1 + a) e^-a and (1 + a + a^2 / 3) e^-a. Gradients are taken by a^2, in which
    the last two are smooth enough at zero.

    Args:
        nu: 0.5, 1.5 or 2.5.
        lengthscale: l, one or (d,), in units of x.

    Raises:
        Refused: another nu, or a lengthscale that is not positive and finite.
    """

    def __init__(self, nu: float = 2.5, lengthscale: Any = 1.0) -> None:
        super().__init__(lengthscale)
        if nu not in SMOOTHNESS:
            raise Refused(f"Matern: nu={nu} is none of {', '.join(map(str, SMOOTHNESS))}")
        self.nu, self.smooth = float(nu), nu > 1

    def options(self) -> dict[str, Any]:
        return {"nu": self.nu, **super().options()}

    def _profile(self, s: Tensor) -> Tensor:
        return _profile_of_matern(2 * self.nu * s, int(self.nu))

    def _derivatives(self, s: Tensor) -> tuple[Tensor, Tensor]:
        a = _root(2 * self.nu * s)
        e = (-a).exp()
        if self.nu == 1.5:
            return -1.5 * e, 0.75 * a * e
        if self.nu == 2.5:
            return -5 / 6 * (1 + a) * e, 5 / 12 * a * a * e
        raise Refused("Matern of nu=0.5 has no derivative where points coincide: take nu=1.5 or 2.5")

    def _spread(self, uniform: Tensor) -> Tensor:
        return (2 * self.nu / chi_square(2 * self.nu, uniform)).sqrt()
