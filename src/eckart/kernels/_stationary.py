"""What kernels of the scaled distance share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from scipy.special import gammaincinv
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain
from eckart.linalg.distances import all_finite, around_one, squared_distances


class Stationary(Kernel):
    """f(s) of s = sum_p (x_p - z_p)^2 / l_p^2, with f(0) = 1.

    Args:
        lengthscale: l, a number for all dimensions or one for each, (d,), in units of x.
    """

    sees_only = frozenset({"difference"})
    smooth = True
    """Whether f has a derivative at 0, so that what rounds s rounds f as much."""

    def __init__(self, lengthscale: Any = 1.0) -> None:
        super().__init__()
        self.log_lengthscale = log_parameter(type(self).__name__, "lengthscale", lengthscale, dimensions=(0, 1))

    def options(self) -> dict[str, Any]:
        return {"lengthscale": plain(self.log_lengthscale.exp())}

    @abstractmethod
    def _profile(self, s: Tensor) -> Tensor:
        """f(s)."""

    @abstractmethod
    def _derivatives(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """f'(s) and s f''(s) in closed form."""

    def profile(self, s: Tensor) -> Tensor:
        """f(s) of scaled squared distances s, not negative, which may be written over."""
        return self._profile(s)

    def scaled(self, x: Tensor) -> Tensor:
        """Points (n, d) by lengthscales, around one of them: the kernel is f of squared distances between these."""
        return self._scaled(*around_one(x))[0]

    def _scaled(self, *points: Tensor) -> list[Tensor]:
        length = length_of(self, points[0].shape[1])
        found = [each / length for each in points]
        if not all(map(all_finite, found)):
            raise Refused(f"{type(self).__name__}: points by lengthscales are beyond floating point: scale them down")
        return found

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        first, second = self._scaled(*around_one(x, None if z is x else z))
        return self._profile(squared_distances(first, None if z is x else second))

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(len(x))

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        drawn = normal(count, dimensions, generator)
        return self.frequencies_of(
            drawn, torch.rand(count, generator=generator, dtype=drawn.dtype, device=drawn.device)
        )

    def frequencies_of(self, normals: Tensor, uniform: Tensor) -> Tensor:
        """Frequencies of the spectral density from normal numbers (m, d) and uniform ones (m,), by their quantiles."""
        length = length_of(self, normals.shape[1]).detach()
        return (normals * self._spread(uniform)[:, None]).to(length.device) / length

    def _spread(self, uniform: Tensor) -> Tensor:
        """What a normal number is to be multiplied with to be a frequency where all lengthscales are 1, by quantile."""
        raise Refused(f"{type(self).__name__} has no spectral density to draw frequencies from: take Nystroem")

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        length = self.log_lengthscale.exp()
        if length.numel() != 1:
            raise Refused(f"{type(self).__name__} of {length.numel()} lengthscales has no derivative by one difference")
        s = (t / length).square()
        if order == 0:
            return self._profile(s)
        first, second = self._derivatives(s)
        if order == 1:
            return 2 * t / length.square() * first
        if order == 2:
            return (2 * first + 4 * second) / length.square()
        raise Refused(f"order={order} is none of 0, 1, 2")


class OfProducts(Stationary):
    """A stationary kernel that is a product of its own kind in each dimension."""

    def factors(self, dimensions: int) -> Sequence[Kernel]:
        return [with_length(type(self)(1.0), self, dimensions, i) for i in range(dimensions)]


def length_of(kernel: Any, dimensions: int) -> Tensor:
    """The lengthscale of a kernel, one or for each dimension; Refused where it is of another number of these."""
    length: Tensor = kernel.log_lengthscale.exp()
    if length.ndim and len(length) != dimensions:
        raise Refused(f"{type(kernel).__name__} has {len(length)} lengthscales, points have {dimensions} dimensions")
    return length


def with_length(made: Any, kernel: Any, dimensions: int, i: int) -> Kernel:
    """A kernel of one dimension that has the lengthscale of the i-th of another's, which gradients reach."""
    length_of(kernel, dimensions)
    shared = kernel.log_lengthscale
    del made._parameters["log_lengthscale"]
    made.log_lengthscale = shared[i] if shared.ndim else shared
    found: Kernel = made
    return found


def normal(count: int, dimensions: int, generator: torch.Generator | None) -> Tensor:
    """(count, dimensions) normal numbers in float64."""
    device = "cpu" if generator is None else generator.device
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64, device=device)


def chi_square(degrees: float, uniform: Tensor) -> Tensor:
    """Quantiles of a chi-square variable, for any positive degrees of freedom."""
    found = 2 * gammaincinv(degrees / 2, uniform.cpu().numpy())
    return torch.from_numpy(found).to(uniform.device)
