"""The Gaussian kernel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eckart.kernels._stationary import OfProducts
from eckart.kernels.contract import Example, kernel


def _example(rng: np.random.Generator) -> Example:
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return Example(
        RBF(0.9),
        rng.standard_normal((12, 3)),
        rng.standard_normal((5, 3)),
        (lambda x: x + 1.5, lambda x: x @ turn),
    )


@kernel(
    "rbf",
    paper="Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eq. 4.9",
    gives="exp(-|x - z|^2 / 2 l^2)",
    example=_example,
    unmeasured="a formula; what is built on it is measured",
)
class RBF(OfProducts):
    """The Gaussian kernel exp(-s / 2) of the scaled squared distance s.

    The product of its own kind in each dimension: a Kronecker product on a `Grid`, a Toeplitz matrix on `Even` points.

    Args:
        lengthscale: l, one or (d,), in units of x; scikit-learn's gamma is 1 / (2 l^2).

    Raises:
        Refused: a lengthscale is not positive and finite.
    """

    def _profile(self, s: Tensor) -> Tensor:
        return (s * -0.5).exp_()

    def profile(self, s: Tensor) -> Tensor:
        return s.mul_(-0.5).clamp_min_(-700.0).exp_()

    def _derivatives(self, s: Tensor) -> tuple[Tensor, Tensor]:
        f = (-s / 2).exp()
        return -f / 2, s * f / 4

    def _spread(self, uniform: Tensor) -> Tensor:
        return torch.ones_like(uniform)
