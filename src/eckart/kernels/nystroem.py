"""Features whose inner products are a kernel's, from a few rows of the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Dense, dense
from eckart.errors import Refused
from eckart.kernels._checks import share
from eckart.kernels._gram import Gram
from eckart.kernels._rows import Landmarks, OfKernel, Picked, decoder, landmarks_of, tensor
from eckart.kernels.contract import kernel_method
from eckart.scikit.base import at_least_one, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.standard_normal((5, 3))[rng.integers(5, size=60)]

    def error(fitted: Any) -> float:
        features = fitted.transform(x)
        return float(np.abs(features @ features.T - fitted.kernel_(x)).max())

    return Planted({"X": x}, error, 1e-10, {"n_components": 5})


@kernel_method(
    "nystroem",
    paper="Williams and Seeger 2001, NIPS; landmarks of Chen, Epperly, Tropp and Webber 2022, arXiv 2207.06503",
    kind="transformer",
    gives="features (samples, n_components)",
    takes="a precomputed kernel",
    planted=_planted,
)
class Nystroem(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OfKernel):
    """Features of a kernel from a few rows: phi(x) = L^-1 k(S, x) of landmarks S with k(S, S) = L L^T.

    phi(x) phi(z) is the best approximation of k(x, z) in the span of the landmarks, and exact where one of both is a
    landmark. Landmarks are drawn by what those before have left (RPCholesky, by blocks), which finds small groups that
    uniform draws miss; n x k entries of the kernel are computed, and never n x n.

    Args:
        kernel: by name, as `as_kernel` takes it; a `Kernel`; or "precomputed", X being the kernel of all pairs, and in
            `transform` that of new rows with all fitted ones.
        n_components: landmarks, at most; fewer where the kernel has no more to give.
        landmarks: "rpcholesky"; "greedy", each the row of which most is left; "uniform"; or points (k, features).
        tol: where "rpcholesky" and "greedy" stop: tr(K - Phi Phi^T) by tr(K).
        gamma: of a kernel by name, as scikit-learn has it; 1 / features where it is None.
        degree: of "polynomial".
        coef0: of "polynomial" and "sigmoid".
        random_state: of the draws.

    Attributes:
        components_: the landmarks, (k, features); with a precomputed kernel (k, 0).
        component_indices_: their rows in X, (k,); empty where they were handed in.
        root_: L (k, k).
        trace_error_: tr(K - Phi Phi^T) / tr(K) on X.
        kernel_: the `Kernel`.
    """

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        n_components: int = 100,
        landmarks: Picked | Any = "rpcholesky",
        tol: float = 0.0,
        gamma: float | None = None,
        degree: int = 3,
        coef0: float = 1.0,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.landmarks = landmarks
        self.tol = tol
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Nystroem:
        """Picks the landmarks among the rows of X (samples, features); itself."""
        self._features(X)
        return self

    @same_kind
    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit`, and the features of X, which are known then."""
        return self._features(X)

    def _features(self, X: Any) -> Dense:
        share(tol=self.tol)
        at_least_one(n_components=self.n_components)
        x = tensor(self._table(X, fit=True))
        kernel = self._fit_kernel(x.numpy())
        gram = Gram(kernel, x)
        found, pivots = landmarks_of(gram, self.landmarks, self.n_components, self.tol, self._rng())
        features = found.features(kernel, x) if pivots is None else pivots.factor
        diagonal = gram.diagonal()
        rest = (diagonal - features.square().sum(1)).clamp_min(0) if pivots is None else pivots.rest
        self.trace_error_ = float(rest.sum() / diagonal.sum()) if diagonal.any() else 0.0
        self.component_indices_, self.components_, self.root_ = found.index, found.points, found.root
        return features.numpy()

    @same_kind
    def transform(self, X: Any) -> Any:
        """Phi (samples, k), of which Phi Phi^T is the kernel of X as the landmarks have it."""
        x = tensor(self._table(X))
        found = Landmarks(self.component_indices_, self.components_, self.root_)
        return found.features(self.kernel_, x).numpy()

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Rows (samples, features) of features X (samples, k): Phi B with B that takes the landmarks' own to them.

        B is a ridge regression, whose ridge has the least error at each landmark when that one is left out.

        Raises:
            Refused: the kernel is precomputed, so that no rows are known.
        """
        check_is_fitted(self)
        if self.kernel_ is None:
            raise Refused("a precomputed kernel has no rows to give back: hand in a kernel and points")
        features = dense(X, "X")
        if features.shape[1] != len(self.root_):
            raise Refused(f"X has {features.shape[1]} features, and {len(self.root_)} come out of transform")
        return features @ decoder(tensor(self.root_), tensor(self.components_)).numpy()

    @property
    def _n_features_out(self) -> int:
        return len(self.root_)
