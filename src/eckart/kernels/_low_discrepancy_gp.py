"""Gaussian processes whose points make transforms of their kernel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from eckart.arrays import Dense, dense
from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._low_discrepancy import BITS, DigitalNet, Lattice
from eckart.kernels._parameters import log_parameter, plain
from eckart.linalg.eigh import Eigen, eigh

BLOCK = 2**21
"""Entries of a matrix of pairs that are held at a time."""


class ProductOfSeries(Kernel):
    """prod_j (1 + g_j b(x_j, z_j)), whose b integrates to zero over each of its arguments."""

    def __init__(self, order: int = 2, weights: Any = 1.0) -> None:
        super().__init__()
        if order not in (1, 2, 3):
            raise Refused(f"{type(self).__name__}: order={order!r} is none of 1, 2, 3")
        self.order = int(order)
        self.log_weights = log_parameter(type(self).__name__, "weights", weights, dimensions=(0, 1))
        if self.log_weights.ndim > 1:
            raise Refused(f"{type(self).__name__}: weights are one number or (d,), not {tuple(self.log_weights.shape)}")

    def options(self) -> dict[str, Any]:
        return {"order": self.order, "weights": plain(self.log_weights.exp())}

    @abstractmethod
    def _difference(self, x: Tensor, z: Tensor) -> Tensor:
        """What of two coordinates is seen."""

    @abstractmethod
    def _series(self, t: Tensor) -> Tensor:
        """b of that."""

    def _weights(self, dimensions: int) -> Tensor:
        weights = self.log_weights.exp()
        if weights.ndim and len(weights) != dimensions:
            raise Refused(f"{type(self).__name__} has {len(weights)} weights, and points have {dimensions} dimensions")
        return weights.expand(dimensions)

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        found = x.new_ones(len(x), len(z))
        for p, weight in enumerate(self._weights(x.shape[1])):
            found = found * (1 + weight * self._series(self._difference(x[:, None, p], z[:, p])))
        return found

    def _diagonal(self, x: Tensor) -> Tensor:
        zero = self._series(x.new_zeros(()))
        return (1 + self._weights(x.shape[1]) * zero).prod().expand(len(x))


@dataclass(frozen=True)
class LowDiscrepancyGP:
    """A Gaussian process c k of an unknown mean, given a function's values at points that make transforms of k.

    Attributes:
        mean: of the function over the cube, as expected.
        sd: its standard deviation.
        points: in the unit cube.
        values: of the function there, (n,).
        kernel: k.
        scale: c.
        coefficients: (K + noise I)^-1 (values - mean), (n,).
        floored: how many eigenvalues were below rounding, and were raised to it.
        sides: (2, d): the cube's lower and upper corner.
        folded: whether the function was seen as f(1 - |1 - 2 u|).
    """

    mean: float
    sd: float
    points: Lattice | DigitalNet
    values: Dense
    kernel: Kernel
    scale: float
    coefficients: Dense
    floored: int
    sides: Dense
    folded: bool
    _eigen: Eigen

    def predict(self, x: Any, *, return_std: bool = False) -> Any:
        """The function's expected values at points (m, d), (m,); with their standard deviations where asked for.

        Raises:
            Refused: a point is out of the cube, or NaN.
        """
        u = (dense(x, "x") - self.sides[0]) / (self.sides[1] - self.sides[0])
        if u.ndim != 2 or u.shape[1:] != self.sides[0].shape or not ((u >= 0) & (u <= 1)).all():
            raise Refused(f"x {u.shape} has points out of the cube of {len(self.sides[0])} dimensions")
        u = np.clip(u / 2 if self.folded else u, 0, 1 - 2.0**-BITS)
        means, deviations = np.empty(len(u)), np.empty(len(u))
        inner, alpha = self._eigen, torch.from_numpy(self.coefficients)
        place = self.points.array()
        step = max(1, BLOCK // len(place))
        with torch.no_grad():
            for at in range(0, len(u), step):
                part = torch.from_numpy(u[at : at + step])
                k = self.kernel(place, part) - 1
                means[at : at + step] = self.mean + k.T @ alpha
                if return_std:
                    v = inner.adjoint(k) / inner.values.sqrt()[:, None]
                    # The mean is not known: what the data say of it weighs with 1 - 1^T K^-1 k.
                    free = (1 - v[0] * (len(place) / inner.values[0]).sqrt()).square() * inner.values[0] / len(place)
                    left = self.kernel.diag(part) - 1 - v.square().sum(0) + free
                    deviations[at : at + step] = (self.scale * left.clamp_min(0)).sqrt()
        return (means, deviations) if return_std else means


def spectrum(points: Lattice | DigitalNet, kernel: Kernel, noise: float) -> tuple[Eigen, int]:
    """The eigenvalues of k - 1 + noise k(0) on the points, none below rounding, and how many were raised to that."""
    found = eigh(kernel.gram(points))
    n = len(points)
    first = kernel(points.array()[:1]).reshape(())
    # The constant belongs to the unknown mean: what is left of its eigenvalue is n times the mean of k - 1.
    values = torch.cat([(found.values[:1] - n).abs(), found.values[1:]]) + noise * first
    least = 4 * torch.finfo(torch.float64).eps * float(found.values.detach().max())
    return Eigen(values.clamp_min(least), found.apply, found.adjoint), int((values < least).sum())


def evidence(eigen: Eigen, y: Tensor) -> tuple[Tensor, Tensor]:
    """-2 log of the restricted likelihood at the best c, but for constants, and that c; y in the basis of `eigen`."""
    n = len(y)
    scale = (y[1:].square() / eigen.values[1:]).sum() / max(n - 1, 1)
    floor = torch.finfo(torch.float64).tiny
    return eigen.values[1:].log().sum() + (n - 1) * scale.clamp_min(floor).log(), scale


def learned(points: Lattice | DigitalNet, kernel: ProductOfSeries, y: Tensor, noise: float) -> ProductOfSeries:
    """The kernel with the weights of the greatest evidence, by L-BFGS."""
    d = len(points.shift)
    trial = type(kernel)(kernel.order, np.full(d, plain(kernel.log_weights.exp())))

    def cost(logs: Dense) -> tuple[float, Dense]:
        trial.log_weights.data = torch.from_numpy(logs.copy())
        trial.zero_grad()
        eigen, _ = spectrum(points, trial, noise)
        value, _ = evidence(eigen, eigen.adjoint(y[:, None])[:, 0])
        value.backward()  # type: ignore[no-untyped-call]
        assert trial.log_weights.grad is not None
        return value.item(), trial.log_weights.grad.numpy().copy()

    # Large weights in many dimensions make all points strangers, which is a valley of its own.
    starts = [trial.log_weights.detach().numpy().copy(), *(np.full(d, np.log(weight)) for weight in (0.1, 0.01))]
    start = min(starts, key=lambda logs: cost(logs)[0])
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(-14, 5)] * d, options={"maxiter": 40})
    return type(kernel)(kernel.order, np.exp(found.x))
