"""The rational quadratic kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from eckart.kernels._parameters import log_parameter, plain
from eckart.kernels._stationary import Stationary, chi_square
from eckart.kernels.contract import Example, kernel


def _example(rng: np.random.Generator) -> Example:
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return Example(
        RationalQuadratic(0.7, 1.2),
        rng.standard_normal((12, 3)),
        rng.standard_normal((5, 3)),
        (lambda x: x - 0.7, lambda x: x @ turn),
    )


@kernel(
    "rational-quadratic",
    paper="Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eq. 4.19",
    gives="(1 + |x - z|^2 / (2 alpha l^2))^-alpha",
    example=_example,
    unmeasured="a formula; what is built on it is measured",
)
class RationalQuadratic(Stationary):
    """Gaussian kernels of many lengthscales added up: (1 + s / (2 alpha))^-alpha of the scaled squared distance s.

    Args:
        alpha: how much the lengthscales agree, positive; the Gaussian kernel where it is infinite.
        lengthscale: l, one or (d,), in units of x.

    Raises:
        Refused: alpha or a lengthscale is not positive and finite.
    """

    def __init__(self, alpha: float = 1.0, lengthscale: Any = 1.0) -> None:
        super().__init__(lengthscale)
        self.log_alpha = log_parameter("RationalQuadratic", "alpha", alpha)

    def options(self) -> dict[str, Any]:
        return {"alpha": plain(self.log_alpha.exp()), **super().options()}

    def _profile(self, s: Tensor) -> Tensor:
        alpha = self.log_alpha.exp()
        return (-alpha * (s / (2 * alpha)).log1p()).exp()

    def _derivatives(self, s: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.log_alpha.exp()
        inner = 1 + s / (2 * alpha)
        first = -0.5 * self._profile(s) / inner
        return first, -s * first * (alpha + 1) / (2 * alpha * inner)

    def _spread(self, uniform: Tensor) -> Tensor:
        alpha = float(self.log_alpha.detach().exp())
        return (chi_square(2 * alpha, uniform) / (2 * alpha)).sqrt()
