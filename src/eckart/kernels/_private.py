"""What is told of private points, and the noise that makes it private."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._named import as_kernel
from eckart.linalg.gaussian_mechanism import noise_ratio
from eckart.scikit.base import Estimator, at_least_one, positive

BLOCK = 2**21
"""Features of how many points times how many there are at once."""
COUNT = 0.3
"""The weight of a point in the number of points, beside features of norm one."""


class Told(ABC):
    """What is told of a data set: a sum over its points of vectors of bounded norm, from which all is answered.

    Attributes:
        l1: how far the 1-norm of one point's share goes at most.
        l2: its Euclidean norm.
    """

    l1: float
    l2: float

    @abstractmethod
    def total(self, x: Dense) -> Dense:
        """The sum (size,) over points x (n, d)."""

    @abstractmethod
    def answer(self, y: Dense, told: Dense) -> Dense:
        """Sums of f(x, y) over what was told of x, (m,), for y (m, d)."""

    @abstractmethod
    def count(self, told: Dense) -> float:
        """How many points there are, by what was told."""


class Fourier(Told):
    """A stationary kernel by (cos w x, sin w x) / sqrt(m / 2), of Euclidean norm one wherever x is: nothing to bound.

    Args:
        frequencies: w (m / 2, d).
        size: k(x, x).
    """

    def __init__(self, frequencies: Dense, size: float) -> None:
        self.frequencies, self.size = frequencies, size
        half = len(frequencies)
        self.l1, self.l2 = float(np.sqrt(2 * half)) + COUNT, float(np.sqrt(1 + COUNT**2))

    def features(self, x: Dense) -> Dense:
        """(n, m)."""
        with np.errstate(over="ignore", invalid="ignore"):
            angle = x @ self.frequencies.T
            if not np.isfinite(angle).all():
                raise Refused("points are too far out for the width of the kernel: scale X")
        found: Dense = np.hstack([np.cos(angle), np.sin(angle)]) / np.sqrt(len(self.frequencies))
        return found

    def total(self, x: Dense) -> Dense:
        found = np.zeros(2 * len(self.frequencies) + 1)
        for rows in self._blocks(x):
            found[:-1] += self.features(rows).sum(0)
        found[-1] = COUNT * len(x)
        return found

    def answer(self, y: Dense, told: Dense) -> Dense:
        found: Dense = np.concatenate([self.features(rows) @ told[:-1] for rows in self._blocks(y)])
        return self.size * found

    def _blocks(self, x: Dense) -> list[Dense]:
        step = max(1, BLOCK // len(self.frequencies))
        return [x[start : start + step] for start in range(0, max(len(x), 1), step)]

    def count(self, told: Dense) -> float:
        return float(told[-1] / COUNT)


class Moments(Told):
    """|x - y|^2, exactly from sums of 1, x and |x|^2; x by a radius, beyond which it is drawn in.

    Args:
        radius: of all points, known without them.
        dimensions: d.
    """

    def __init__(self, radius: float, dimensions: int) -> None:
        self.radius = radius
        self.l1, self.l2 = float(2 + np.sqrt(dimensions)), float(np.sqrt(3))

    def total(self, x: Dense) -> Dense:
        x = x / self.radius
        largest = np.maximum(np.abs(x).max(1, keepdims=True), 1.0)
        norms = largest * np.linalg.norm(x / largest, axis=1, keepdims=True)
        x = x / np.maximum(norms, 1)
        return np.concatenate([[len(x)], x.sum(0), [np.square(x).sum()]])

    def answer(self, y: Dense, told: Dense) -> Dense:
        y = y / self.radius
        found: Dense = told[0] * np.square(y).sum(1) - 2 * y @ told[1:-1] + told[-1]
        return found * self.radius**2

    def count(self, told: Dense) -> float:
        return float(told[0])


class Trees(Told):
    """|x - y|_1 by coordinates: numbers of points and sums of their places in the dyadic intervals of a range.

    A query adds up at most one interval a level on the left of y; both are told of each interval (Backurs, Lin,
    Mahabadi, Silwal and Tarnawski, arXiv 2409.01688), where the paper has numbers only, and a factor 1 + a with them.

    Args:
        low: of all coordinates, known without the points.
        high: above it.
        dimensions: d.
        levels: of intervals; y goes to the nearest end of one of the smallest.
    """

    def __init__(self, low: float, high: float, dimensions: int, levels: int) -> None:
        self.low, self.high, self.dimensions, self.levels = low, high, dimensions, levels
        # A number and a place of at most 1, in one interval of each level, and of all.
        self.l1 = float(2 * dimensions * (levels + 1))
        self.l2 = float(np.sqrt(self.l1))

    def _places(self, x: Dense) -> Dense:
        return (np.clip(x, self.low, self.high) - self.low) / (self.high - self.low)

    def total(self, x: Dense) -> Dense:
        place = self._places(x)
        found = []
        for level in range(self.levels + 1):
            cells = 2**level
            at = np.minimum((place * cells).astype(np.int64), cells - 1)
            for i in range(self.dimensions):
                found.append(np.bincount(at[:, i], minlength=cells))
                found.append(np.bincount(at[:, i], place[:, i], minlength=cells))
        return np.concatenate(found).astype(np.float64)

    def answer(self, y: Dense, told: Dense) -> Dense:
        place = self._places(y)
        end = np.rint(place * 2**self.levels).astype(np.int64)
        found = np.zeros(len(y))
        start = 0
        for level in range(self.levels + 1):
            cells = 2**level
            number = told[start : start + 2 * self.dimensions * cells].reshape(self.dimensions, 2, cells)
            start += 2 * self.dimensions * cells
            if level == 0:
                found += number[:, 1, 0].sum() - place @ number[:, 0, 0]
            # What lies left of y: the interval of this level that ends where the lower levels begin.
            at = end >> (self.levels - level)
            taken = at & 1 == 1
            for i in range(self.dimensions):
                left = np.maximum(at[:, i] - 1, 0)
                share = place[:, i] * number[i, 0, left] - number[i, 1, left]
                found += 2 * np.where(taken[:, i], share, 0.0)
        return found * (self.high - self.low)

    def count(self, told: Dense) -> float:
        return float(np.mean(told[: 2 * self.dimensions : 2]))


def release(
    total: Dense,
    map_: Told,
    epsilon: float,
    delta: float,
    neighbours: Literal["add-remove", "replace"],
    rng: np.random.Generator,
) -> tuple[Dense, dict[str, Any]]:
    """A sum with noise that makes it (epsilon, delta)-private, and a report of how.

    Sums (..., size) have noise of their own each. With delta = 0 it is of Laplace, by the 1-norm; else Gaussian, by the
    Euclidean one and exact accounting.
    """
    if neighbours not in ("add-remove", "replace"):
        raise Refused(f"neighbours={neighbours!r} is neither add-remove nor replace")
    times = 1 if neighbours == "add-remove" else 2
    sensitivity = times * (map_.l2 if delta else map_.l1)
    if delta:
        scale = sensitivity * noise_ratio(epsilon, delta)
        noise = scale * rng.standard_normal(total.shape)
    else:
        scale = sensitivity / positive(epsilon=epsilon)
        noise = rng.laplace(0.0, scale, total.shape)
    report = {
        "epsilon": float(epsilon),
        "delta": float(delta),
        "neighbours": neighbours,
        "mechanism": "gaussian" if delta else "laplace",
        "sensitivity": float(sensitivity),
        "scale": float(scale),
    }
    return total + noise, report


class Private(Estimator):
    """What the sums and the classifier share."""

    kernel: Any
    gamma: float | None
    bounds: Any
    n_features: int
    levels: int

    def __init__(
        self,
        kernel: str | Kernel = "rbf",
        epsilon: float = 1.0,
        *,
        delta: float = 1e-6,
        gamma: float | None = None,
        neighbours: Literal["add-remove", "replace"] = "add-remove",
        bounds: Any = None,
        n_features: int = 2000,
        levels: int = 10,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.epsilon = epsilon
        self.delta = delta
        self.gamma = gamma
        self.neighbours = neighbours
        self.bounds = bounds
        self.n_features = n_features
        self.levels = levels
        self.random_state = random_state

    def _map_of(self, dimensions: int) -> Told:
        if self.kernel == "sqeuclidean":
            if self.bounds is None or np.ndim(self.bounds):
                raise Refused(f"bounds={self.bounds!r}: the radius of all points, known without them, is needed")
            return Moments(positive(bounds=self.bounds), dimensions)
        if self.kernel == "l1":
            if self.bounds is None or np.shape(self.bounds) != (2,) or not self.bounds[0] < self.bounds[1]:
                raise Refused(
                    f"bounds={self.bounds!r}: (least, largest) coordinate, known without the points, is needed"
                )
            at_least_one(levels=self.levels)
            return Trees(float(self.bounds[0]), float(self.bounds[1]), dimensions, self.levels)
        return Fourier(self.frequencies_, self._size(dimensions))

    def _kernel_of(self, dimensions: int) -> Kernel:
        return as_kernel(self.kernel, dimensions, gamma=self.gamma)

    def _size(self, dimensions: int) -> float:
        return float(self._kernel_of(dimensions).diag(np.zeros((1, dimensions)))[0])

    def _draw(self, dimensions: int, rng: np.random.Generator) -> None:
        """Frequencies, which are not of the data and need no privacy."""
        at_least_one(n_features=self.n_features)
        if self.kernel in ("l1", "sqeuclidean"):
            self.frequencies_ = np.zeros((0, dimensions))
            return
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = self._kernel_of(dimensions).frequencies(max(1, self.n_features // 2), dimensions, generator)
        self.frequencies_ = drawn.detach().numpy()
