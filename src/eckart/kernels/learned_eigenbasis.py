"""A spectral basis of a cloud of points from random functions on it that were smoothed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.spatial import cKDTree

from eckart.arrays import Dense, dense
from eckart.errors import Refused
from eckart.kernels.contract import kernel_method
from eckart.linalg.truncated_svd import truncated_svd
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted


def averaging(points: Dense, others: Dense, neighbors: int, width: float | None) -> tuple[sparse.csr_array, float]:
    """Means over the nearest points, weighted by exp(-|x - z|^2 / 2 w^2): rows of one.

    Args:
        points: where means are taken over (n, d).
        others: where they are wanted (m, d).
        neighbors: k, of each; those of a point are itself and the next.
        width: w; the median distance to the k-th neighbour by two where it is None.

    Returns:
        S (m, n) with k entries a row, and w.
    """
    far, near = cKDTree(points).query(others, neighbors)
    far, near = far.reshape(len(others), -1), near.reshape(len(others), -1)
    w = float(np.median(far[:, -1])) / 2 if width is None else width
    # Less the nearest: a row that is far from all points does not vanish.
    weight = np.exp(-(np.square(far / (w or 1.0)) - np.square(far[:, :1] / (w or 1.0))) / 2)
    weight /= weight.sum(axis=1, keepdims=True)
    starts = np.arange(0, near.size + 1, near.shape[1])
    return sparse.csr_array((weight.ravel(), near.ravel(), starts), shape=(len(others), len(points))), w


def probe_basis(probes: Dense, count: int) -> tuple[Dense, Dense, Dense]:
    """The nested orthonormal basis of the least residuals of probes: U, s and V of their first singular triplets.

    sum_j sum over probes of |p - U_j U_j^T p|^2, U_j the first j columns, is what the network of the paper minimises;
    each term is least where U_j spans the first j left singular vectors (Eckart and Young), so all of them are at once.
    """
    import torch

    u, s, vt = truncated_svd(
        torch.from_numpy(probes), count, tolerance=1e-8, generator=torch.Generator().manual_seed(0)
    )
    return u.numpy(), s.numpy(), vt.numpy().T


def _planted(rng: np.random.Generator) -> Planted:
    angle = np.sort(rng.uniform(0, 2 * np.pi, 300))
    x = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    waves = np.stack([np.ones(300), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], 1)

    def apart(fitted: ProbeEigenbasis) -> float:
        q = np.linalg.qr(waves)[0]
        return 1 - float(np.square(q.T @ fitted.components_).sum()) / 5

    return Planted({"X": x}, apart, 0.1, {"n_components": 5, "n_neighbors": 20})


@kernel_method(
    "learned-eigenbasis",
    paper="Learning Eigenstructures of Unstructured Data Manifolds 2025, arXiv 2512.01103",
    kind="transformer",
    gives="a spectral basis of points",
    planted=_planted,
    expression="U of U S V^T ~ A^t noise, A the mean over neighbours",
)
class ProbeEigenbasis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """The basis on which smooth random functions on a cloud of points are best approximated, exactly and at once.

    Probes are A^t times normal noise, A a weighted mean over nearest neighbours. The paper trains a network on many
    clouds until its output has the least residuals of such probes on every number of columns. For one cloud the least
    is the truncated singular value decomposition of the probes, which is what stands here; with more and more probes
    it becomes that of A^t itself (`n_probes=None`, the default, by Lanczos: it needs no draws). So the operator is not
    avoided: it is A, and its own eigenvectors are nearer to the Laplacian's: 0.94 of the harmonics up to degree three
    of a sphere lie in them, 0.88 in this limit, 0.76 in the basis of 500 probes. The network is not here: for one cloud
    it can at best come near to this. A small one that learned from 100 shapes of 400 points holds 0.85 of the best on
    new ones, where the graph's eigenvectors hold 0.98, and saves 14 ms a shape against this (the paper's are larger).

    New points have the mean of the last but one smoothing over their neighbours among those fitted, which for those
    themselves gives back the basis (Nystroem).

    Args:
        n_components: k.
        n_neighbors: over which A takes means.
        steps: t.
        n_probes: random functions; None for the limit of infinitely many.
        probes: (points (n, d), generator) -> (n, p), other probes in place of smoothed noise; they have no extension to
            new points.
        width: of the means, in units of X; half of the median distance to the last neighbour where it is None.
        random_state: of the probes and of Lanczos' start.

    Attributes:
        components_: the basis at the fitted points, (n, k), orthonormal columns.
        singular_values_: (k,); of the probes by the square root of their number.
        eigenvalues_: -ln(s_j / s_1) / t, (k,): what the averaging takes off j in a step, beyond the first; those of
            the Laplacian times w^2 / 2 where neighbours reach far enough.
        density_: the first component squared, (n,): the measure for which the basis is orthonormal. It is that of the
            paper where its network weighs points; here all count alike, and it is nearly 1/n.
        width_, neighbors_: that were taken.
        centre_, unit_: what is taken off points, and by what the rest is divided.
        fitted_: the points so scaled (n, d).
        extension_: of which new points take means (n, k); None for other probes.
    """

    def __init__(
        self,
        n_components: int = 16,
        *,
        n_neighbors: int = 20,
        steps: int = 10,
        n_probes: int | None = None,
        probes: Callable[[Dense, np.random.Generator], Dense] | None = None,
        width: float | None = None,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.steps = steps
        self.n_probes = n_probes
        self.probes = probes
        self.width = width
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ProbeEigenbasis:
        """Finds the basis at points X (n, d), more than one; itself. No more components than points are found."""
        x = self._table(X, fit=True, ensure_min_samples=2)
        at_least_one(n_components=self.n_components, n_neighbors=self.n_neighbors, steps=self.steps)
        if self.width is not None:
            positive(width=self.width)
        if self.probes is not None and not callable(self.probes):
            raise Refused(f"probes={self.probes!r:.80} is no function of points and a generator")
        rng, n = generator_from(self.random_state), len(x)
        self.centre_ = x[0].copy()
        largest = float(np.abs(x / 2 - self.centre_ / 2).max())
        self.unit_ = float(np.ldexp(1.0, int(np.frexp(largest)[1]) + 1)) if largest > 0 else 1.0
        if not np.isfinite(self.unit_):
            raise Refused("X is as large as float64 holds: divide it by a power of two")
        self.fitted_ = self._scaled(x)
        count, width = min(self.n_components, n), None if self.width is None else self.width / self.unit_
        self.neighbors_ = min(self.n_neighbors, n)
        mean, w = averaging(self.fitted_, self.fitted_, self.neighbors_, width)
        self.width_ = w * self.unit_
        self.extension_: Dense | None = None
        if self.probes is not None:
            given = dense(self.probes(x, rng), "probes of the points", ndim=None)
            if given.ndim != 2 or len(given) != n or not np.isfinite(given).all() or not given.any():
                raise Refused(f"probes of shape {given.shape} are not (n, p) finite numbers for {n} points")
            u, s, _ = probe_basis(given, min(count, *given.shape))
            s = s / given.shape[1] ** 0.5
        elif self.n_probes is None:
            u, s, self.extension_ = self._limit(mean, count, rng)
        else:
            at_least_one(n_probes=self.n_probes)
            before = rng.standard_normal((n, self.n_probes))
            for _ in range(self.steps - 1):
                before = mean @ before
            u, s, v = probe_basis(mean @ before, min(count, self.n_probes))
            self.extension_ = before @ (v / np.where(s > 0, s, 1.0))
            s = s / self.n_probes**0.5
        sign = np.where(u.sum(axis=0) < 0, -1.0, 1.0)
        self.components_, self.singular_values_ = u * sign, s
        if self.extension_ is not None:
            self.extension_ = self.extension_ * sign
        share = s / (s.max(initial=0) or 1.0)
        self.eigenvalues_ = -np.log(np.maximum(share, np.finfo(float).tiny)) / self.steps
        self.density_ = np.square(self.components_[:, 0])
        return self

    def _limit(self, mean: sparse.csr_array, count: int, rng: np.random.Generator) -> tuple[Dense, Dense, Dense]:
        """Left singular vectors and values of A^t, and A^(t - 1) times the right ones by the values."""
        n = mean.shape[0]

        def times(v: Dense, matrix: Any, steps: int) -> Dense:
            for _ in range(steps):
                v = matrix @ v
            return v

        def both(v: Dense) -> Dense:
            return times(times(v, mean.T, self.steps), mean, self.steps)

        if count < n // 2:
            operator = LinearOperator((n, n), matvec=both, matmat=both, dtype=np.float64)
            values, u = eigsh(operator, count, v0=1 + rng.uniform(0, 1, n), tol=1e-10)
        else:
            values, u = np.linalg.eigh(both(np.eye(n)))
        values, u = values[::-1][:count], u[:, ::-1][:, :count]
        s = np.sqrt(np.maximum(values, 0))
        # A^t v = s u and A^t^T u = s v.
        right = times(u, mean.T, self.steps) / np.where(s > 0, s, 1.0)
        return u, s, times(right, mean, self.steps - 1) / np.where(s > 0, s, 1.0)

    @same_kind
    def transform(self, X: Any) -> Any:
        """The basis (m, k) at points X (m, d)."""
        x = self._scaled(self._table(X))
        if self.extension_ is None:
            raise Refused("probes of one's own are known at the fitted points only: take components_")
        return averaging(self.fitted_, x, self.neighbors_, self.width_ / self.unit_)[0] @ self.extension_

    def _scaled(self, x: Dense) -> Dense:
        found: Dense = (x - self.centre_) / self.unit_
        return found

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[1])
