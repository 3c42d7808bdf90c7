"""Positive definite matrices normalized in the Bures-Wasserstein geometry: a mean at the identity, a spread of one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, dense, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.spd import bures_mean, bures_tangents, checked_definite, from_bures_tangents, spd_function
from eckart.scikit.base import Estimator, at_least_one, positive, same_kind
from eckart.scikit.door import TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted


def deformed(x: Dense, metric: Dense, power: float) -> Dense:
    """M^-1/2 X^t M^-1/2 of X (n, p, p), positive semi-definite: where the plain metric is the generalized one.

    Args:
        x: X.
        metric: M^-1/2, (p, p).
        power: t.
    """
    powered = x if power == 1 else spd_function(x, lambda v: np.maximum(v, 0.0) ** power)
    found: Dense = metric @ powered @ metric
    return (found + np.swapaxes(found, -1, -2)) / 2


def normalized(tangents: Dense, spread: float) -> Dense:
    """Exp at the identity of tangents (n, p, p) by their spread: (I + U / spread)^2, positive semi-definite.

    Its distance from I is |U| / spread as long as I + U / spread is positive; what is farther is folded back, as the
    metric is not complete. The published layer has no check of that either.
    """
    half = np.eye(tangents.shape[-1]) + tangents / spread
    found: Dense = half @ half
    return found


def _planted(rng: np.random.Generator) -> Planted:
    # Of commuting matrices the mean has the mean of the square roots of eigenvalues as roots.
    q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    roots = rng.uniform(0.5, 2, (20, 4)) * 10.0 ** np.arange(4)
    truth = (q * np.square(roots.mean(axis=0))) @ q.T
    return Planted(
        {"X": np.array([(q * np.square(r)) @ q.T for r in roots])},
        lambda fitted: np.linalg.norm(fitted.mean_ * fitted.unit_ - truth) / np.linalg.norm(truth),
        1e-8,
    )


@estimator(
    "spd-bures-wasserstein",
    paper="Wang, Jin, Chen, Luo and Wu 2025, arXiv 2504.00660",
    kind="trials",
    gives="tangent vectors, or normalized matrices",
    takes="symmetric positive semi-definite matrices (trials, p, p)",
    planted=_planted,
)
class BuresNormalizer(TransformerMixin, Estimator):
    """Covariances as tangent vectors at their Bures-Wasserstein mean, or normalized to it: a mean of I, a spread of 1.

    The metric needs no inverse of a covariance, so that ill-conditioned ones and singular ones do no harm; the mean has
    to be definite. Norms of vectors are distances from the mean. This is the batch normalization of the paper at rest:
    the mean carried to the identity by parallel transport, distances divided by their root mean square, under X -> X^t
    and M; what a network learns there (M, t, weights) is given here. The paper's batches take one step to the mean from
    the Euclidean one (max_iter=1); here it goes on until it is found.

    Args:
        output: "tangent", vectors (trials, p (p + 1) / 2); or "matrix", normalized ones (trials, p, p).
        power: t.
        metric: M (p, p); None for the identity, "mean" for the mean of X^t, which makes units of channels matter less.
        tol: of the mean's tangent.
        max_iter: steps to the mean at most.

    Attributes:
        mean_: of M^-1/2 (X / unit_)^t M^-1/2, (p, p).
        unit_: a power of two near the largest entry.
        metric_: M^-1/2.
        spread_: root mean square of the distances from the mean.
        n_iter_, converged_, history_: of the mean.
    """

    def __init__(
        self,
        output: Literal["tangent", "matrix"] = "tangent",
        *,
        power: float = 1.0,
        metric: Any = None,
        tol: float = 1e-9,
        max_iter: int = 200,
    ) -> None:
        self.output = output
        self.power = power
        self.metric = metric
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any = None) -> BuresNormalizer:
        """Finds the mean of matrices X (trials, p, p); itself."""
        at_least_one(max_iter=self.max_iter)
        if self.output not in ("tangent", "matrix"):
            raise Refused(f"output={self.output!r} is neither tangent nor matrix")
        power = positive(power=self.power)
        x = dense(X, "the matrices", ndim=3)
        self.n_channels_, self.unit_ = x.shape[-1], power_of_two(x)
        x = self._checked(x)
        if self.metric is None:
            self.metric_ = np.eye(self.n_channels_)
        else:
            mean = isinstance(self.metric, str) and self.metric == "mean"
            m = deformed(x, np.eye(self.n_channels_), power).mean(axis=0) if mean else dense(self.metric, "the metric")
            if m.shape != x.shape[1:]:
                raise Refused(f"a metric of {m.shape} for matrices of {x.shape[1:]}")
            self.metric_ = spd_function(checked_definite(m[None], "the metric")[0], lambda v: 1 / np.sqrt(v))
        x = deformed(x, self.metric_, power)
        checked_definite(x.mean(axis=0)[None], "the mean of the matrices, number")
        found = bures_mean(x, tolerance=self.tol, max_iter=self.max_iter)
        self.mean_ = checked_definite(found.value[None], "the mean of the matrices, number")[0]
        distances = np.square(bures_tangents(x, self.mean_)).sum(axis=(1, 2))
        self.spread_ = float(np.sqrt(distances.mean())) or 1.0
        self._finished(found)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Vectors (trials, p (p + 1) / 2), or normalized matrices (trials, p, p), of matrices (trials, p, p)."""
        check_is_fitted(self)
        x = deformed(self._checked(dense(X, "the matrices", ndim=3)), self.metric_, self.power)
        tangents = bures_tangents(x, self.mean_)
        if self.output == "matrix":
            return normalized(tangents, self.spread_)
        rows, columns = np.triu_indices(self.n_channels_)
        return tangents[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2)) * self._size()

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Matrices (trials, p, p) of tangent vectors."""
        check_is_fitted(self)
        rows, columns = np.triu_indices(self.n_channels_)
        vectors = dense(X, "the vectors") / self._size()
        if self.output == "matrix" or vectors.shape[1] != len(rows):
            raise Refused(f"X of {vectors.shape}: vectors of {len(rows)} go back, and no normalized matrices")
        tangents = np.zeros((len(vectors), self.n_channels_, self.n_channels_))
        vectors = vectors / np.where(rows == columns, 1.0, np.sqrt(2))
        tangents[:, rows, columns] = tangents[:, columns, rows] = vectors
        x = deformed(from_bures_tangents(tangents, self.mean_), spd_function(self.metric_, lambda v: 1 / v), 1.0)
        return self.unit_ * (x if self.power == 1 else spd_function(x, lambda v: np.maximum(v, 0) ** (1 / self.power)))

    def _size(self) -> float:
        """Of vectors, by those of X / unit_; a metric that comes from X makes them numbers without a unit."""
        return 1.0 if isinstance(self.metric, str) else float(self.unit_) ** (self.power / 2)

    def _checked(self, x: Dense) -> Dense:
        """X by unit_, where every matrix is symmetric and positive semi-definite up to rounding."""
        if not len(x) or x.shape[1:] != (self.n_channels_, self.n_channels_):
            raise Refused(f"matrices of shape {x.shape}: (trials, {self.n_channels_}, {self.n_channels_}) is needed")
        x = x / self.unit_
        size = np.abs(x).max(axis=(1, 2))
        if (np.abs(x - np.swapaxes(x, 1, 2)).max(axis=(1, 2)) > 1e-9 * size).any():
            raise Refused("a matrix is not symmetric: hand in covariances (trials, p, p)")
        least = np.linalg.eigvalsh(x)[:, 0]
        if (least < -1e-9 * size).any():
            at = int(np.argmin(least / np.where(size > 0, size, 1.0)))
            raise Refused(f"matrix {at} has an eigenvalue of {least[at] * self.unit_:.2g}: none may be negative")
        return x
