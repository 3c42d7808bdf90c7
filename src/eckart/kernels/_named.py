"""Kernels without a file of their own, and kernels by the names of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain, points
from eckart.kernels._stationary import length_of, with_length

NAMES = ("rbf", "laplacian", "matern", "linear", "poly", "polynomial", "sigmoid", "cosine", "chi2", "additive_chi2")


class Linear(Kernel):
    """x . z."""

    def options(self) -> dict[str, Any]:
        return {}

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        return x @ z.T

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.square().sum(1)


class Polynomial(Kernel):
    """(gamma x . z + offset)^degree.

    Args:
        degree: a whole number from 1 on.
        gamma: positive.
        offset: zero or more.

    Raises:
        Refused: they are not.
    """

    def __init__(self, degree: int = 3, gamma: float = 1.0, offset: float = 1.0) -> None:
        super().__init__()
        whole = isinstance(degree, int | np.integer | float) and degree == int(degree) >= 1
        if not whole or not isinstance(offset, int | float | np.number) or not 0 <= offset < float("inf"):
            raise Refused(f"Polynomial: degree={degree}, offset={offset}: a whole degree from 1 on, no negative offset")
        self.degree, self.offset = int(degree), float(offset)
        self.log_gamma = log_parameter("Polynomial", "gamma", gamma)

    def options(self) -> dict[str, Any]:
        return {"degree": self.degree, "gamma": plain(self.log_gamma.exp()), "offset": self.offset}

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        return (self.log_gamma.exp() * (x @ z.T) + self.offset) ** self.degree

    def _diagonal(self, x: Tensor) -> Tensor:
        return (self.log_gamma.exp() * x.square().sum(1) + self.offset) ** self.degree


class Sigmoid(Kernel):
    """tanh(gamma x . z + offset), which is indefinite for most points.

    Args:
        gamma: positive.
        offset: a number.

    Raises:
        Refused: they are not.
    """

    psd = False

    def __init__(self, gamma: float = 1.0, offset: float = 1.0) -> None:
        super().__init__()
        if not isinstance(offset, int | float | np.number) or not np.isfinite(offset):
            raise Refused(f"Sigmoid: offset={offset!r:.80} is no finite number")
        self.offset, self.log_gamma = float(offset), log_parameter("Sigmoid", "gamma", gamma)

    def options(self) -> dict[str, Any]:
        return {"gamma": plain(self.log_gamma.exp()), "offset": self.offset}

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        return (self.log_gamma.exp() * (x @ z.T) + self.offset).tanh()

    def _diagonal(self, x: Tensor) -> Tensor:
        return (self.log_gamma.exp() * x.square().sum(1) + self.offset).tanh()


def _counts(x: Any) -> Tensor:
    """Points without negative entries."""
    found = points(x)
    if found.numel() and float(found.detach().min()) < 0:
        raise Refused(f"x has an entry {float(found.detach().min()):.3g}, and chi-squared kernels are of counts")
    return found


def chi_squared(x: Tensor, z: Tensor) -> Tensor:
    """sum_p (x_p - z_p)^2 / (x_p + z_p), (n, m); nothing where both are zero."""
    found = x.new_zeros(len(x), len(z))
    for one, other in zip(x.T, z.T, strict=True):
        apart, both = one[:, None] - other, one[:, None] + other
        found = found + apart * (apart / both.where(both > 0, 1.0))
    return found


class ChiSquared(Kernel):
    """exp(-gamma sum_p (x_p - z_p)^2 / (x_p + z_p)), of counts or shares, which are not negative.

    Args:
        gamma: positive.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.log_gamma = log_parameter("ChiSquared", "gamma", gamma)

    def options(self) -> dict[str, Any]:
        return {"gamma": plain(self.log_gamma.exp())}

    def _checked(self, x: Any) -> Tensor:
        return _counts(x)

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        return (-self.log_gamma.exp() * chi_squared(x, z)).exp()

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(len(x))


class AdditiveChiSquared(Kernel):
    """-sum_p (x_p - z_p)^2 / (x_p + z_p), of counts or shares; positive semi-definite less its mean only."""

    psd = False

    def options(self) -> dict[str, Any]:
        return {}

    def _checked(self, x: Any) -> Tensor:
        return _counts(x)

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        return -chi_squared(x, z)

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


class Angle(Kernel):
    """x . z / |x| |z|; zero where a point is."""

    def options(self) -> dict[str, Any]:
        return {}

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        return _directions(x) @ _directions(z).T

    def _diagonal(self, x: Tensor) -> Tensor:
        return (x != 0).any(1).to(x.dtype)


def _directions(x: Tensor) -> Tensor:
    """Rows of length one, of any scale; zero where a row is."""
    size = x.detach().abs().amax(1, keepdim=True) if x.shape[1] else x.new_zeros(len(x), 1)
    inner = x / size.where(size > 0, 1.0)
    length = torch.linalg.vector_norm(inner, dim=1, keepdim=True)
    found: Tensor = inner / length.where(length > 0, 1.0)
    return found


class Laplacian(Kernel):
    """exp(-sum_p |x_p - z_p| / l_p).

    Args:
        lengthscale: l, one or (d,), in units of x; scikit-learn's gamma is 1 / l.
    """

    sees_only = frozenset({"difference"})

    def __init__(self, lengthscale: Any = 1.0) -> None:
        super().__init__()
        self.log_lengthscale = log_parameter("Laplacian", "lengthscale", lengthscale, dimensions=(0, 1))

    def options(self) -> dict[str, Any]:
        return {"lengthscale": plain(self.log_lengthscale.exp())}

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        length = length_of(self, x.shape[1])
        far: Tensor = torch.cdist(x / length, z / length, p=1.0)
        return (-far).exp()

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(len(x))

    def factors(self, dimensions: int) -> Sequence[Kernel]:
        return [with_length(Laplacian(1.0), self, dimensions, i) for i in range(dimensions)]

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(count, dimensions, generator=generator, dtype=torch.float64)
        return (pi * (uniform - 0.5)).tan() / length_of(self, dimensions).detach()


class Cosine(Kernel):
    """cos(2 pi f (x - z)), of one dimension.

    Args:
        frequency: f, in cycles by the unit of x, positive.
    """

    sees_only = frozenset({"difference"})

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.log_frequency = log_parameter("Cosine", "frequency", frequency)

    def options(self) -> dict[str, Any]:
        return {"frequency": plain(self.log_frequency.exp())}

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        if x.shape[1] != 1:
            raise Refused(f"Cosine is of one dimension, and points are of {x.shape[1]}")
        return self.along(x - z.T)

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        w = 2 * pi * self.log_frequency.exp()
        if order not in (0, 1, 2):
            raise Refused(f"order={order} is none of 0, 1, 2")
        return ((w * t).cos(), -w * (w * t).sin(), -w.square() * (w * t).cos())[order]


def as_kernel(
    kernel: str | Kernel, dimensions: int, *, gamma: float | None = None, degree: int = 3, coef0: float = 1.0
) -> Kernel:
    """A kernel by scikit-learn's name and parameters; one that is a `Kernel` already as it is.

    Args:
        kernel: "rbf", "laplacian", "matern" (5/2), "linear", "polynomial" or "poly", "sigmoid", "cosine", "chi2",
            "additive_chi2"; or a `Kernel`.
        dimensions: of the points.
        gamma: as scikit-learn has it; where it is None 1 of "chi2", and 1 / dimensions of others. A Matern kernel's
            lengthscale is that of "rbf".
        degree: of "polynomial".
        coef0: of "polynomial" and "sigmoid".

    Raises:
        Refused: another name, or a gamma that is not positive.
    """
    from eckart.kernels.matern import Matern
    from eckart.kernels.rbf import RBF

    if isinstance(kernel, Kernel):
        return kernel
    if not isinstance(kernel, str) or kernel not in NAMES:
        raise Refused(f"kernel={kernel!r} is no Kernel and none of {', '.join(NAMES)}")
    gamma = (1.0 if kernel == "chi2" else 1 / max(dimensions, 1)) if gamma is None else gamma
    if not isinstance(gamma, int | float | np.number) or not 0 < gamma < float("inf"):
        raise Refused(f"gamma={gamma!r:.80} is not positive and finite")
    width = (2 * gamma) ** -0.5
    made: dict[str, Callable[[], Kernel]] = {
        "rbf": lambda: RBF(width),
        "laplacian": lambda: Laplacian(1 / gamma),
        "matern": lambda: Matern(2.5, width),
        "linear": Linear,
        "poly": lambda: Polynomial(degree, gamma, coef0),
        "polynomial": lambda: Polynomial(degree, gamma, coef0),
        "sigmoid": lambda: Sigmoid(gamma, coef0),
        "cosine": Angle,
        "chi2": lambda: ChiSquared(gamma),
        "additive_chi2": AdditiveChiSquared,
    }
    return made[kernel]()
