"""Sums of similarities to a private data set, told once, and asked for at any point."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.kernels._private import Private, release
from eckart.kernels.contract import kernel_method
from eckart.scikit.base import generator_from, same_kind
from eckart.scikit.door import TransformerMixin
from eckart.scikit.planted import Planted


def _planted(rng: np.random.Generator) -> Planted:
    x, new = rng.standard_normal((500, 2)), rng.standard_normal((40, 2))
    truth = np.exp(-np.square(new[:, None] - x).sum(-1) / 2).sum(1)

    def error(fitted: Any) -> Any:
        return np.abs(fitted.transform(new)[:, 0] - truth).max() / len(x)

    options = {"epsilon": 1.0, "gamma": 0.5, "n_features": 500}
    return Planted({"X": x}, error, 0.15, options, {"scale": "the width of the kernel is in units of X"})


@kernel_method(
    "private-similarity",
    paper="Backurs, Lin, Mahabadi, Silwal and Tarnawski 2024, arXiv 2403.08917 and 2409.01688",
    kind="sums",
    gives="sums of similarities to private points, at any others",
    planted=_planted,
)
class PrivateKernelSum(TransformerMixin, Private):
    """Sums over private points x of f(x, y), told once with noise, and answered for any number of y.

    A stationary kernel goes by random Fourier features: their norm is one wherever x is, so that nothing need be
    bounded, and the Gaussian noise of an answer does not grow with their number, as Laplace's does with its root. Take
    many, and delta above zero. "sqeuclidean", |x - y|^2, is exact from sums of 1, x and |x|^2; "l1", |x - y|_1, from
    trees of intervals. The paper's dimension reduction and its sparse exponentials are not here: features see any
    number of dimensions alike.

    Bounds are to be known without the data, and points beyond them are drawn in. How many points there are is private
    too where neighbours are "add-remove". Noise is of floating-point numbers, whose gaps can tell an attacker more than
    the theory of real numbers allows (Mironov 2012); and who knows the seed knows the noise.

    Args:
        kernel: "rbf", "laplacian", "matern" as scikit-learn's, or a stationary `Kernel`; "sqeuclidean"; or "l1".
        epsilon: of everything that is told.
        delta: of it; 0 for noise of Laplace.
        gamma: of the kernel; 1 / features where it is None.
        neighbours: "add-remove" a point, or "replace" one, which takes twice the noise.
        bounds: the radius of "sqeuclidean"; the least and largest coordinate of "l1".
        n_features: of a kernel.
        levels: of intervals of "l1".
        random_state: of features and noise.

    Attributes:
        told_: with noise, (size,).
        frequencies_: (n_features / 2, features).
        count_: how many points there are, by what was told.
        privacy_: epsilon, delta, neighbours, mechanism, sensitivity and scale of the noise.
    """

    def fit(self, X: Any, y: Any = None) -> PrivateKernelSum:
        """Tells of X (samples, features), once; itself."""
        table = self._table(X, fit=True)
        rng = generator_from(self.random_state)
        self._draw(table.shape[1], rng)
        map_ = self._map_of(table.shape[1])
        self.told_, self.privacy_ = release(map_.total(table), map_, self.epsilon, self.delta, self.neighbours, rng)
        self.count_ = map_.count(self.told_)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Sums (samples, 1) of similarities, or of distances, at rows."""
        table = self._table(X)
        return self._map_of(table.shape[1]).answer(table, self.told_)[:, None]
