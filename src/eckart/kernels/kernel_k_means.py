"""k-means in the distances of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Dense, back, power_of_two
from eckart.errors import Refused
from eckart.kernels._checks import ROUNDED
from eckart.kernels._kernel import Kernel
from eckart.kernels._named import Linear
from eckart.kernels._rows import OfKernel
from eckart.kernels.contract import kernel_method
from eckart.linalg.kernel_k_means import kernel_k_means, to_centres
from eckart.linalg.pivoted_cholesky import INDEFINITE
from eckart.scikit.base import at_least_one
from eckart.scikit.door import ClusterMixin
from eckart.scikit.planted import Planted

LOST = 1000.0
"""Distances of so many units of rounding of the kernel's largest entry are none."""


def _planted(rng: np.random.Generator) -> Planted:
    ways, label = rng.standard_normal((2, 4)), np.arange(80) % 2
    x = ways[label] * rng.uniform(0.1, 10.0, 80)[:, None]

    def wrong(fitted: Any) -> Any:
        share = np.mean(fitted.labels_ != label)
        return min(share, 1 - share)

    return Planted({"X": x}, wrong, 0.01, {"n_clusters": 2, "kernel": "cosine"})


@kernel_method(
    "kernel-k-means",
    paper="Schoelkopf, Smola and Mueller 1998, Nonlinear component analysis as a kernel eigenvalue problem; Dhillon, "
    "Guan and Kulis 2004, Kernel k-means, spectral clustering and normalized cuts",
    kind="clusterer",
    gives="clusters by the distances of a kernel",
    takes="a Gram matrix as well",
    planted=_planted,
    unmeasured="clusters of graphs by it are measured with log-graph-kernels",
)
class KernelKMeans(ClusterMixin, OfKernel):
    """k-means in the distances k(x, x) + k(z, z) - 2 k(x, z), from the kernel alone.

    The n x n matrix is kept while fitting: 8 n^2 bytes. Each step costs n^2 times the number of clusters.

    Args:
        n_clusters: at most the samples.
        kernel: "rbf", "laplacian", "matern", "linear", "polynomial", "cosine" as scikit-learn's, a `Kernel`, or
            "precomputed", where X is the matrix (n, n), and (m, n) to predict.
        gamma: of the kernel, where it has one; 1 / features where it is None.
        n_init: runs, of which the best is kept.
        max_iter: steps of a run at most.
        random_state: of the starts.

    Attributes:
        labels_: (n,).
        inertia_: the sum of squared distances from the means.
        members_: what was fitted, of which the kernel is taken to predict; of "precomputed" nothing, (0, n).
        member_: (n, n_clusters), 1 / size of the cluster that a row belongs to.
        kernel_: the `Kernel`, a copy; None for "precomputed".
        centre_: what is taken off X first, (features,): the mean of X for "linear", else zero.
        within_: the mean of the kernel over pairs of a cluster, (n_clusters,).
        n_iter_: steps of all runs together.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        kernel: str | Kernel = "rbf",
        gamma: float | None = None,
        n_init: int = 10,
        max_iter: int = 300,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.kernel = kernel
        self.gamma = gamma
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> KernelKMeans:
        """Clusters of X (samples, features), or of the Gram matrix (samples, samples); itself."""
        at_least_one(n_clusters=self.n_clusters, n_init=self.n_init, max_iter=self.max_iter)
        table = self._table(X, fit=True)
        if self.n_clusters > len(table):
            raise Refused(f"n_clusters={self.n_clusters} of n_samples={len(table)}: take as many at most")
        kernel = self._fit_kernel(table)
        with np.errstate(over="ignore", invalid="ignore"):
            # Differences are all that counts, and products of far points lose them.
            scale = power_of_two(table)
            self.centre_ = np.zeros(table.shape[1])
            if isinstance(kernel, Linear):
                self.centre_ = (table / scale).mean(0) * scale
            table = table - self.centre_
        self.members_ = table[:0] if kernel is None else table
        gram = self._kernel_of(table)
        # Distances of a matrix near the largest number are none: its size does not matter to the clusters.
        scale = power_of_two(gram)
        _apart(gram / scale)
        solution = kernel_k_means(
            gram / scale,
            self.n_clusters,
            generator=self._rng(),
            restarts=self.n_init,
            max_iter=self.max_iter,
        )
        self._finished(solution)
        self.labels_ = solution.value
        self.inertia_ = max(float(solution.error), 0.0) * scale
        self.member_, _, within = to_centres(gram, self.labels_, self.n_clusters)
        self.within_ = np.where(np.isfinite(within), within, np.finfo(float).max)
        return self

    def predict(self, X: Any) -> Any:
        """The nearest mean (samples,) of rows."""
        across = self._kernel_of(self._table(X) - self.centre_) @ self.member_
        # k(x, x) is the same for all means.
        return back((self.within_ - 2 * across).argmin(1), X)

    def _kernel_of(self, table: Dense) -> Dense:
        if self.kernel_ is None:
            return table
        gram: Dense = self.kernel_(table, self.members_)
        if not np.isfinite(gram).all():
            raise Refused("the kernel of these points is beyond the numbers of 64 bits: scale X")
        return gram


def _apart(gram: Dense) -> None:
    """Raises Refused where squared distances of a kernel are below zero, or what is above zero is rounding.

    Args:
        gram: (n, n), its largest entry between 1 and 2.
    """
    diagonal = gram.diagonal()
    distances = diagonal[:, None] + diagonal - 2 * gram
    low, high = float(distances.min()), float(distances.max())
    if low < -max(ROUNDED, INDEFINITE):
        raise Refused(f"the kernel is not positive semi-definite: a squared distance is {low:.3g} of its largest entry")
    if 0 < max(high, -low) <= LOST * np.finfo(float).eps:
        raise Refused(
            f"the kernel's largest squared distance is {high:.3g} of its largest entry, which is rounding: centre X, "
            "or take a larger gamma"
        )
