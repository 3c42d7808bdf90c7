"""Principal components of a kernel, exact or from a few rows of the data."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from eckart.arrays import dense
from eckart.errors import Refused
from eckart.kernels._checks import share
from eckart.kernels._gram import Gram
from eckart.kernels._rows import OfKernel, combined, landmarks_of, tensor
from eckart.kernels.contract import kernel_method
from eckart.kernels.rbf import RBF
from eckart.linalg.pivoted_cholesky import INDEFINITE
from eckart.linalg.tall_ridge import tall_ridge
from eckart.scikit.base import at_least_one, positive, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted

SOLVERS = ("rpcholesky", "exact")
RIDGES = 10.0 ** torch.arange(-8, 3, dtype=torch.float64)
"""Ridges that `inverse_transform` chooses from."""
SEVERAL, FEW = 500, 0.05
"""Rows from which on, and the share of components up to which, these are found without the others."""


def _planted(rng: np.random.Generator) -> Planted:
    turns = rng.uniform(0, 2 * np.pi, 200)
    x = np.stack([np.cos(turns), np.sin(turns)], 1) * rng.choice([0.3, 1.0], 200)[:, None]
    inner = np.linalg.norm(x, axis=1) < 0.6

    def error(fitted: Any) -> float:
        """How far two rings are from being apart in some component."""
        found = fitted.transform(x)
        return 1 - max(float(abs(np.corrcoef(found[:, j], inner)[0, 1])) for j in range(found.shape[1]))

    return Planted(
        {"X": x}, error, 0.05, {"gamma": 2.0, "n_components": 5}, {"scale": "the width of the kernel is in units of X"}
    )


def leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """The largest eigenvalues of a matrix (n, n), ascending, and their vectors (n, count), by Lanczos (ARPACK).

    None where it is negative somewhere by more than rounding, which Cholesky's decomposition tells, or does not end.
    """
    n, scale = len(matrix), float(matrix.diagonal().abs().max())
    if not scale:
        return None
    times = LinearOperator((n, n), lambda v: (matrix @ torch.from_numpy(v.ravel())).numpy() / scale, dtype=np.float64)
    try:
        found, vectors = eigsh(times, count, which="LA", v0=np.random.default_rng(0).standard_normal(n))
    except ArpackError:
        return None
    order = np.argsort(found, kind="stable")
    shifted = matrix.clone()
    shifted.diagonal().add_(INDEFINITE * scale * float(found.max()))
    if torch.linalg.cholesky_ex(shifted).info:
        return None
    return scale * torch.from_numpy(found[order]), torch.from_numpy(vectors[:, order])


@kernel_method(
    "kernel-pca",
    paper="Schoelkopf, Smola and Mueller 1998, Neural Computation 10(5); on rows of Chen, Epperly, Tropp and Webber "
    "2022, arXiv 2207.06503",
    kind="transformer",
    gives="scores (samples, n_components)",
    takes="a precomputed kernel",
    planted=_planted,
)
class KernelPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OfKernel):
    """Principal components of the features of a kernel, without the matrix of all pairs.

    "rpcholesky" takes the components of K ~ F F^T with F (n, n_landmarks) from columns of the kernel, centred: an SVD
    of F. What is left out, `trace_error_`, bounds the error of every eigenvalue. "exact" is the eigendecomposition of
    the centred K, by Lanczos where few components of many rows are asked for. In both new rows need the kernel with the
    rows in `X_fit_` only.

    Args:
        kernel: by name, as `as_kernel` takes it; a `Kernel`; or "precomputed", X being the kernel of all pairs, and in
            `transform` that of new rows with all fitted ones.
        n_components: how many; None for all whose eigenvalue is not zero.
        solver: "rpcholesky" or "exact".
        n_landmarks: columns of "rpcholesky", at most.
        tol: where "rpcholesky" stops: tr(K - F F^T) by tr(K).
        fit_inverse_transform: whether `inverse_transform` is learned.
        alpha: its ridge, positive; None for the one of the least error at rows that are left out. Larger ones give rows
            that are smoother than those fitted, which is what takes noise away where many components are kept.
        gamma: of a kernel by name, as scikit-learn has it; 1 / features where it is None.
        degree: of "polynomial".
        coef0: of "polynomial" and "sigmoid".
        random_state: of the draws.

    Attributes:
        eigenvalues_: of the centred K, descending, (n_components,).
        dual_coef_: A (k, n_components): scores are k(x, X_fit_) A - offset_.
        offset_: (n_components,).
        X_fit_: (k, features); of a precomputed kernel (k, 0).
        fit_indices_: where they were among the rows fitted, (k,).
        trace_error_: tr(K - F F^T) / tr(K), zero for "exact".
        back_points_, back_coef_, back_width_: scores, coefficients and lengthscale of `inverse_transform`.
        kernel_: the `Kernel`.

    Raises:
        Refused: K does not fit into memory with "exact", or is not positive semi-definite.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel: Any = "rbf",
        solver: Literal["rpcholesky", "exact"] = "rpcholesky",
        n_landmarks: int = 500,
        tol: float = 0.0,
        fit_inverse_transform: bool = False,
        alpha: float | None = None,
        gamma: float | None = None,
        degree: int = 3,
        coef0: float = 1.0,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.solver = solver
        self.n_landmarks = n_landmarks
        self.tol = tol
        self.fit_inverse_transform = fit_inverse_transform
        self.alpha = alpha
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> KernelPCA:
        """Finds the components of rows X (samples, features); itself."""
        self._fit(X)
        return self

    @same_kind
    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit`, and the scores of X, which are known then."""
        return self._fit(X)

    def _fit(self, X: Any) -> Any:
        if self.solver not in SOLVERS:
            raise Refused(f"solver={self.solver!r} is none of {', '.join(SOLVERS)}")
        share(tol=self.tol)
        at_least_one(n_landmarks=self.n_landmarks)
        if self.n_components is not None:
            at_least_one(n_components=self.n_components)
        table = self._table(X, fit=True)
        x, kernel = tensor(table), self._fit_kernel(table)
        if self.fit_inverse_transform and kernel is None:
            raise Refused("a precomputed kernel has no rows to give back: fit_inverse_transform needs points")
        gram = Gram(kernel, x)
        self.fit_indices_ = np.arange(len(gram))
        scores, coefficients, offset = self._exact(gram) if self.solver == "exact" else self._from_columns(gram)
        if len(coefficients):  # Signs are free: the largest coefficient is made positive.
            largest = coefficients.abs().argmax(0, keepdim=True)
            signs = coefficients.gather(0, largest)[0].sign()
        else:
            signs = offset
        scores, coefficients = scores * signs, coefficients * signs
        self.dual_coef_, self.offset_ = coefficients.numpy(), (offset * signs).numpy()
        self.X_fit_ = np.zeros((len(coefficients), 0)) if kernel is None else table[self.fit_indices_]
        if self.fit_inverse_transform:
            self._learn_back(scores, x)
        return np.ascontiguousarray(scores.numpy())

    def _kept(self, values: Tensor, n: int) -> Tensor:
        """Indices of the components, of eigenvalues in ascending order."""
        count = len(values) if self.n_components is None else min(self.n_components, len(values))
        order = values.argsort(descending=True, stable=True)[:count]
        return order[values[order] > n * torch.finfo(torch.float64).eps * float(values.abs().max())]

    def _exact(self, gram: Gram) -> tuple[Tensor, Tensor, Tensor]:
        matrix = gram.whole("KernelPCA(solver='exact')", "solver='rpcholesky'", 3)
        means = matrix.mean(0)
        total = float(matrix.diagonal().abs().sum())
        matrix -= means
        matrix -= matrix.mean(1, keepdim=True)
        count = self.n_components
        few = count is not None and len(gram) >= SEVERAL and count <= FEW * len(gram)
        found = leading(matrix, count) if few and count is not None else None
        values, vectors = torch.linalg.eigh(matrix) if found is None else found
        # What centring leaves of a constant kernel is rounding of the kernel, and not of itself.
        floor = 8 * torch.finfo(torch.float64).eps * total
        low, high = float(values.min()), float(values.abs().max())
        if low < -INDEFINITE * high and high > floor:
            reason = (
                f"the kernel is not positive semi-definite: its matrix has an eigenvalue {low:g}"
                if low < -floor
                else f"less its mean the kernel is left with eigenvalues up to {high:g}, of which {-low:g} are "
                "rounding: centre X, or take a kernel of differences"
            )
            raise Refused(reason)
        values = torch.where(values > floor, values, 0.0)
        kept = self._kept(values, len(gram))
        if not len(kept):
            warnings.warn(
                "KernelPCA: less its mean the kernel is rounding, so that there is no component: rows are alike, or so "
                "far from zero that a kernel of products does not tell them apart; centre X",
                stacklevel=4,
            )
        self.eigenvalues_, roots = values[kept].numpy(), values[kept].sqrt()
        coefficients = vectors[:, kept] / roots
        self.trace_error_ = 0.0
        return vectors[:, kept] * roots, coefficients, means @ coefficients

    def _from_columns(self, gram: Gram) -> tuple[Tensor, Tensor, Tensor]:
        marks, pivots = landmarks_of(gram, "rpcholesky", self.n_landmarks, self.tol, self._rng())
        assert pivots is not None
        total = float(gram.diagonal().sum())
        self.fit_indices_, self.trace_error_ = marks.index, pivots.error / total if total else 0.0
        mean = pivots.factor.mean(0)
        centred = pivots.factor.sub_(mean)
        triangle = torch.linalg.qr(centred, mode="r").R
        _, s, right = torch.linalg.svd(triangle, full_matrices=False)
        floor = 8 * len(gram) * torch.finfo(torch.float64).eps * total / len(gram)
        kept = self._kept(torch.where(s.square() > floor, s.square(), 0.0), len(gram)) if len(s) else s.long()
        directions = right[kept].T
        self.eigenvalues_ = s[kept].square().numpy()
        coefficients = torch.linalg.solve_triangular(tensor(marks.root).T, directions, upper=True)
        return centred @ directions, coefficients, mean @ directions

    def _learn_back(self, scores: Tensor, x: Tensor) -> None:
        """Kernel ridge regression of the rows on their scores, of a width of the scores' spread, on a few of them."""
        spread = float(scores.square().sum(1).mean().sqrt())
        self.back_width_ = spread if spread > 0 else 1.0
        gram = Gram(RBF(self.back_width_), scores)
        marks, pivots = landmarks_of(gram, "rpcholesky", self.n_landmarks, 0.0, self._rng())
        assert pivots is not None
        both = lambda: [(pivots.factor, x)]  # noqa: E731
        regression = tall_ridge(both)
        if self.alpha is None:
            errors, _ = regression.left_out(both, RIDGES)
            weights = regression.weights(float(RIDGES[errors.sum(1).argmin()]))
        else:
            weights = regression.weights(positive(alpha=self.alpha))
        self.back_points_ = marks.points
        self.back_coef_ = torch.linalg.solve_triangular(tensor(marks.root).T, weights, upper=True).numpy()

    @same_kind
    def transform(self, X: Any) -> Any:
        """Scores (samples, n_components) of rows X."""
        x = tensor(self._table(X))
        return combined(self.kernel_, x, self.X_fit_, self.fit_indices_, self.dual_coef_) - self.offset_

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Rows (samples, features) of scores X (samples, n_components): kernel ridge regression on those fitted.

        Raises:
            Refused: `fit_inverse_transform` was False.
        """
        check_is_fitted(self)
        if not hasattr(self, "back_coef_"):
            raise Refused("inverse_transform is learned with fit_inverse_transform=True only")
        scores = dense(X, "X")
        if scores.shape[1] != len(self.offset_):
            raise Refused(f"X has {scores.shape[1]} columns, and {len(self.offset_)} come out of transform")
        none = np.zeros(len(self.back_points_), np.int64)
        return combined(RBF(self.back_width_), tensor(scores), self.back_points_, none, self.back_coef_)

    @property
    def _n_features_out(self) -> int:
        return len(self.offset_)
