"""Kernel ridge regression: in closed form, by conjugate gradients, or in the span of a few rows."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eckart.arrays import Dense, dense, power_of_two
from eckart.errors import Refused
from eckart.kernels._gram import Gram
from eckart.kernels._rows import OfKernel, combined, drawn_columns, landmarks_of, tensor
from eckart.kernels.contract import kernel_method
from eckart.linalg.pivoted_cholesky import INDEFINITE
from eckart.linalg.refined import refined
from eckart.linalg.tall_ridge import tall_ridge
from eckart.scikit.base import at_least_one, positive, same_kind
from eckart.scikit.door import RegressorMixin
from eckart.scikit.planted import Planted

Solver = Literal["exact", "pcg", "subset"]
SOLVERS = ("exact", "pcg", "subset")
NEAR = 0.1
"""Of alpha: tiles whose rounding is below make steps that are worth taking, as a round leaves that much at most."""


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.uniform(-1, 1, (60, 2))
    truth = np.sin(3 * x[:, 0]) * x[:, 1]
    new = rng.uniform(-0.9, 0.9, (30, 2))
    return Planted(
        {"X": x, "y": truth},
        lambda fitted: float(np.abs(fitted.predict(new) - np.sin(3 * new[:, 0]) * new[:, 1]).max()),
        0.01,
        {"gamma": 1.0, "alpha": 1e-8},
    )


def preconditioner(factor: Tensor, alpha: float) -> Any:
    """r -> (F F^T + alpha I)^-1 r = (r - F (F^T F + alpha I)^-1 F^T r) / alpha for F (n, k) and r (n, t)."""
    values, vectors = torch.linalg.eigh(factor.T @ factor)
    core = (vectors / (values.clamp_min(0) + alpha)) @ vectors.T
    return lambda r: (r - factor @ (core @ (factor.T @ r))) / alpha


def dual(matrix: Tensor, y: Tensor, alpha: float) -> Tensor:
    """(K + alpha I)^-1 y, K positive semi-definite; the shortest where that is singular to working precision.

    Raises:
        Refused: K is indefinite by more than alpha.
    """
    shifted = matrix.clone()
    shifted.diagonal().add_(alpha)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    # Squares of a factor's diagonal that are rounding say nothing.
    sure = not failed and float(factor.diagonal().min()) ** 2 > len(y) * 1e-16 * float(shifted.diagonal().max())
    if sure:
        return torch.cholesky_solve(y, factor)
    values, vectors = torch.linalg.eigh(matrix)
    values = _semidefinite(values, alpha) + alpha
    kept = values > len(y) * torch.finfo(torch.float64).eps * float(values.max())
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)[:, None]
    found: Tensor = vectors @ (inverse * (vectors.T @ y))
    return found


def left_out(values: Tensor, vectors: Tensor, y: Tensor, alpha: float) -> Tensor:
    """y_i - f_{-i}(x_i) = [(K + alpha I)^-1 y]_i / [(K + alpha I)^-1]_ii, from K = V diag(values) V^T."""
    inverse = 1 / (values + alpha)
    found: Tensor = (vectors @ (inverse[:, None] * (vectors.T @ y))) / (vectors.square() @ inverse)[:, None]
    return found


def _semidefinite(values: Tensor, alpha: float) -> Tensor:
    if float(values.min()) < -max(INDEFINITE * float(values.abs().max()), 0.5 * alpha):
        raise Refused(
            f"the kernel is not positive semi-definite: its matrix has an eigenvalue {float(values.min()):.3g}, and "
            f"alpha={alpha:g} does not make up for it"
        )
    return values.clamp_min(0)


@kernel_method(
    "kernel-ridge",
    paper="Saunders, Gammerman and Vovk 1998, ICML; preconditioner and subset of Diaz, Epperly, Frangella, Tropp and "
    "Webber 2023, arXiv 2304.12465",
    kind="regressor",
    gives="predictions (samples, targets)",
    takes="a precomputed kernel, weights of samples, several targets",
    planted=_planted,
)
class KernelRidge(RegressorMixin, OfKernel):
    """Kernel ridge regression: f(x) = sum_i c_i k(x, x_i) of the least sum_i w_i (y_i - f(x_i))^2 + alpha |f|^2.

    "exact" solves (K + alpha I) c = y by Cholesky; of several alphas it takes, by one eigendecomposition, the one of
    the least error when each sample is left out. "pcg" iterates on tiles of K that are computed anew in each step and
    held by nobody, preconditioned by what n_components columns of RPCholesky know of K: n x n_components numbers of
    memory. Where float32 rounds tiles by far less than alpha, steps are by such, and tiles of
    float64 judge what they leave. "subset" looks for f in the span of n_components samples, by QR in blocks, with
    closed-form errors too.

    Args:
        kernel: by name, as `as_kernel` takes it; a `Kernel`; or "precomputed", X being the kernel of all pairs, and in
            `predict` that of new rows with all fitted ones.
        alpha: of |f|^2, positive, zero with "exact" for the shortest interpolant; or several, of which one is chosen
            (scikit-learn has an alpha for each target there).
        solver: "exact", "pcg", or "subset".
        n_components: columns of the preconditioner, or samples that span f.
        tol: of |y - (K + alpha I) c| / |y|, where "pcg" stops.
        max_iter: of "pcg".
        gamma: of a kernel by name, as scikit-learn has it; 1 / features where it is None.
        degree: of "polynomial".
        coef0: of "polynomial" and "sigmoid".
        random_state: of the draws of "pcg" and "subset".

    Attributes:
        dual_coef_: c (n,) or (n, targets); of "subset" for the k samples in `X_fit_`.
        X_fit_: the rows that c belongs to; of a precomputed kernel (k, 0).
        fit_indices_: where they were among those fitted.
        alpha_: the one that was taken.
        loo_errors_: of several alphas, the mean squared error at samples that were left out, (alphas,).
        loo_residuals_: with alpha_, sqrt(w_i) (y_i - f_{-i}(x_i)), as y; there with several alphas.
        n_iter_, converged_: steps of "pcg", and whether they reached `tol`; 1 and True of the others.
        history_: of "pcg", what was left after each step, as tiles of its kind have it.
        residual_: of "pcg", |y - (K + alpha I) c| / |y| at the end, the largest of the targets.
        kernel_: the `Kernel`.

    Raises:
        Refused: K does not fit into memory with "exact"; the kernel is indefinite; several alphas with "pcg".
    """

    loo_residuals_: Dense

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        alpha: Any = 1.0,
        solver: Solver = "exact",
        n_components: int = 500,
        tol: float = 1e-6,
        max_iter: int = 500,
        gamma: float | None = None,
        degree: int = 3,
        coef0: float = 1.0,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.solver = solver
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KernelRidge:
        """Fits rows X (samples, features) to y (samples,) or (samples, targets), with weights (samples,); itself."""
        if self.solver not in SOLVERS:
            raise Refused(f"solver={self.solver!r} is none of {', '.join(SOLVERS)}")
        at_least_one(n_components=self.n_components, max_iter=self.max_iter)
        table, target = self._table(X, fit=True, y=y, multi_output=True, y_numeric=True)
        alphas = self._alphas()
        unit = power_of_two(target)
        x, goal = tensor(table), torch.from_numpy(np.array(target, np.float64) / unit).reshape(len(table), -1)
        root = torch.from_numpy(np.sqrt(weights(sample_weight, len(table))))[:, None]
        gram = Gram(self._fit_kernel(table), x)
        self.fit_indices_, self.n_iter_, self.converged_ = np.arange(len(table)), 1, True
        solve = {"exact": self._exact, "pcg": self._pcg, "subset": self._subset}[self.solver]
        found = solve(gram, root * goal, root, alphas).numpy() * unit
        if len(alphas) > 1:
            self.loo_errors_ *= unit**2
            self.loo_residuals_ = np.reshape(self.loo_residuals_, np.shape(target)) * unit
        self.dual_coef_ = found[:, 0] if np.ndim(target) == 1 else found
        self.X_fit_ = np.zeros((len(found), 0)) if self.kernel_ is None else table[self.fit_indices_]
        return self

    def _alphas(self) -> list[float]:
        given = dense([self.alpha] if isinstance(self.alpha, Real) else self.alpha, "alpha", ndim=None)
        several = given.ndim > 0 and not isinstance(self.alpha, Real)
        alphas: list[float] = given.ravel().tolist()
        if several and (self.solver == "pcg" or not alphas):
            raise Refused(f"alpha={self.alpha!r}: solver='pcg' takes one, and others one or more")
        for alpha in alphas:
            if several or alpha or self.solver != "exact":
                positive(alpha=alpha)
        return alphas

    def _exact(self, gram: Gram, y: Tensor, root: Tensor, alphas: list[float]) -> Tensor:
        matrix = gram.whole("KernelRidge(solver='exact')", "solver='pcg' or 'subset'", 2 + (len(alphas) > 1))
        matrix.mul_(root).mul_(root.T)
        if len(alphas) == 1:
            self.alpha_ = alphas[0]
            return root * dual(matrix, y, self.alpha_)
        values, vectors = torch.linalg.eigh(matrix)
        values = _semidefinite(values, min(alphas))
        residuals = [left_out(values, vectors, y, alpha) for alpha in alphas]
        self._choose(alphas, torch.stack([each.square().sum() for each in residuals]), y)
        self.loo_residuals_ = residuals[int(np.argmin(self.loo_errors_))].numpy()
        found: Tensor = root * (vectors @ ((vectors.T @ y) / (values + self.alpha_)[:, None]))
        return found

    def _choose(self, alphas: list[float], sums: Tensor, y: Tensor) -> None:
        self.loo_errors_ = (sums / y.numel()).numpy()
        self.alpha_ = alphas[int(np.argmin(self.loo_errors_))]

    def _pcg(self, gram: Gram, y: Tensor, root: Tensor, alphas: list[float]) -> Tensor:
        self.alpha_ = alphas[0]
        rank = min(self.n_components, len(gram))
        known = drawn_columns(gram, rank, self._rng())
        near = gram.rounding() * float(root.max()) ** 2 <= NEAR * self.alpha_
        exact, rough = (
            lambda v, kind=kind: root * gram.times(root * v, kind) for kind in (torch.float64, torch.float32)
        )
        solution = refined(
            exact,
            rough if near else exact,
            y,
            shift=self.alpha_,
            preconditioner=preconditioner(known.factor.mul_(root), self.alpha_),
            tolerance=positive(tol=self.tol),
            iterations=self.max_iter,
        )
        if not np.isfinite(solution.history).all() or not np.isfinite(np.asarray(solution.error)).all():
            raise Refused(
                "solver='pcg' has squares of numbers that float64 does not hold: divide X, y or sample_weight by a "
                "power of two, or take solver='exact'"
            )
        self._finished(solution)
        self.residual_ = float(np.max(solution.error))
        found: Tensor = root * solution.value
        return found

    def _subset(self, gram: Gram, y: Tensor, root: Tensor, alphas: list[float]) -> Tensor:
        marks, pivots = landmarks_of(gram, "rpcholesky", self.n_components, 0.0, self._rng())
        assert pivots is not None
        features = pivots.factor.mul_(root)
        n, width = features.shape
        # Blocks of as many rows as columns at least: a QR of less costs more by row.
        step = max(4 * width, 1024)
        both = lambda: ((features[at : at + step], y[at : at + step]) for at in range(0, n, step))  # noqa: E731
        regression = tall_ridge(both)
        self.alpha_ = alphas[0]
        if len(alphas) > 1:
            sums, residuals = regression.left_out(both, torch.tensor(alphas, dtype=torch.float64))
            self._choose(alphas, sums.sum(1), y)
            self.loo_residuals_ = residuals.numpy()
        self.fit_indices_ = marks.index
        found: Tensor = torch.linalg.solve_triangular(tensor(marks.root).T, regression.weights(self.alpha_), upper=True)
        return found

    @same_kind
    def predict(self, X: Any) -> Any:
        """f at rows X (samples, features), or of the kernel's matrix; (samples,) or (samples, targets)."""
        x = tensor(self._table(X))
        return combined(self.kernel_, x, self.X_fit_, self.fit_indices_, self.dual_coef_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def weights(sample_weight: Any, n: int) -> Dense:
    """Weights of samples (n,); Refused where one is negative, NaN or infinite, or none is above zero."""
    if sample_weight is None:
        return np.ones(n)
    made = dense([sample_weight] * n if isinstance(sample_weight, Real) else sample_weight, "sample_weight", ndim=None)
    if made.shape != (n,) or not (np.isfinite(made).all() and (made >= 0).all() and made.any()):
        raise Refused(f"sample_weight of shape {made.shape} is no weight, zero or more, for each of {n} samples")
    return made
