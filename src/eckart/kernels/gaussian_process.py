"""Regression by Gaussian processes whose covariance is dense, Kronecker, Toeplitz, or of low rank."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eckart import linalg
from eckart.arrays import Dense as Array
from eckart.arrays import back
from eckart.errors import Refused
from eckart.kernels._checks import blocks, squared, standing
from eckart.kernels._evidence import (
    Placed,
    begun,
    bound,
    chosen,
    learned,
    placed,
    quadratic_and_logdet,
    rooted,
    sampled,
    surprise,
    thin,
)
from eckart.kernels._gram import Gram, finite
from eckart.kernels._kernel import Kernel, Multiple
from eckart.kernels._named import as_kernel
from eckart.kernels._points import Points
from eckart.kernels._rows import OfKernel, combined, landmarks_of, tensor, torch_generator
from eckart.kernels.contract import kernel_method
from eckart.scikit.base import at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import RegressorMixin, check_is_fitted
from eckart.scikit.planted import Planted
from eckart.structures import Dense

FEW = 300
"""Rows whose evidence says where to start."""
SLACK = 1e-10
"""Of the largest variance, that is added to those of draws, where rounding leaves a covariance indefinite."""
Structure = Literal["auto", "exact", "kronecker", "toeplitz", "low-rank"]


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.uniform(-2, 2, (50, 1))
    new = np.linspace(-1.8, 1.8, 30)[:, None]
    y = np.sin(3 * x[:, 0]) + 0.05 * rng.standard_normal(50)
    return Planted(
        {"X": x, "y": y}, lambda fitted: float(np.abs(fitted.predict(new) - np.sin(3 * new[:, 0])).max()), 0.1
    )


@kernel_method(
    "gaussian-process",
    paper="Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, ch. 2 and 5; Saatci 2011, thesis, "
    "ch. 5; Titsias 2009, AISTATS",
    kind="regressor",
    gives="means and standard deviations (samples,)",
    planted=_planted,
)
class GaussianProcess(RegressorMixin, OfKernel):
    """Gaussian process regression: y = mean + f(x) + noise, of covariance scale k(x, z) + noise, by the most evidence.

    The noise's variance has a closed form given the others, so that L-BFGS is over the kernel's parameters and the
    ratio scale / noise alone; the best of several widths is where it starts. Rows that are a full grid, in any order,
    have a Kronecker product of the axes' matrices where the kernel is a product of such; evenly spaced rows of one
    feature a Toeplitz matrix; both are exact. "low-rank" maximises a lower bound of the evidence (Titsias 2009) in the
    span of n_components rows that RPCholesky draws: n x n_components numbers of memory.

    What is known beforehand is not to be learned: parameters of the kernel that require no gradient stay as they are,
    those of `Cosine(1 / 24).requires_grad_(False)` say. Of even rows a wave of more than half a cycle by row has a slow
    one of the same values there, and no evidence tells one from the other.

    Args:
        kernel: by scikit-learn's name, of a lengthscale that is that of X to begin with; or a `Kernel`, not changed.
        structure: "exact", "kronecker", "toeplitz", "low-rank"; "auto" takes what the rows allow, "exact" for up to
            `exact_up_to` scattered rows, else "low-rank".
        noise: variance of the noise where `optimize` is False; else its share of the variance to begin with.
        optimize: whether parameters are learned; else the kernel is taken with scale 1.
        n_components: of "low-rank".
        exact_up_to: rows.
        max_iter: of L-BFGS.
        random_state: of the rows of "low-rank".

    Attributes:
        kernel_: with the parameters that were found.
        scale_, noise_, ratio_: variances of the kernel and the noise, and the first by the second.
        mean_: of y, which is taken away first.
        structure_: which one it was.
        log_marginal_likelihood_: ln p(y), less mean_; a lower bound of it with "low-rank".
        X_fit_: rows (n, features); of "low-rank" those that were drawn (k, features).
        dual_coef_: f(x) = sum_i c_i k(x, x_i) of the rows in X_fit_.
        root_: of K / noise + I with "exact"; of the matrix of X_fit_ with "low-rank"; lower triangular.
        core_, loo_: of "low-rank", the Cholesky factor of I + F^T F / noise, and what `leave_one_out` gives.
        n_iter_, converged_, history_: of L-BFGS.
    """

    dual_coef_: Array
    loo_: Array

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        structure: Structure = "auto",
        noise: float = 0.1,
        optimize: bool = True,
        n_components: int = 300,
        exact_up_to: int = 2000,
        max_iter: int = 100,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.structure = structure
        self.noise = noise
        self.optimize = optimize
        self.n_components = n_components
        self.exact_up_to = exact_up_to
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> GaussianProcess:
        """Learns from rows X (samples, features), or `Points`, and y (samples,); itself."""
        at_least_one(n_components=self.n_components, exact_up_to=self.exact_up_to, max_iter=self.max_iter)
        rows = X.array().numpy() if isinstance(X, Points) else X
        table, target = self._table(rows, fit=True, y=y, y_numeric=True)
        target = np.asarray(target, np.float64)
        self.mean_, unit, rest = standing(target)
        squared(unit)
        x, goal = tensor(table), torch.from_numpy(rest)
        noise = positive(noise=self.noise)
        # Of a constant there is nothing to learn, and no evidence that is finite.
        learn = self.optimize and bool(goal.any())
        fixed = None if learn else squared(1 / unit, noise)
        model = Multiple(self._kernel(table), 1 / noise)
        found = chosen(self.structure, x, model, self.exact_up_to)
        self.structure_ = found.structure if found is not None else "low-rank"
        self.n_iter_, self.converged_, self.history_ = 1, True, np.zeros(0)
        if learn:
            some = sampled(x, FEW, self._rng())
            begun(model, x[some], goal[some], self.max_iter if found is None else 0)
        drawn = self._drawn(model.kernel, x) if found is None else x

        def cost() -> Tensor:
            if found is None:
                return bound(model, x, drawn, goal, fixed)
            parts = quadratic_and_logdet(model.gram(found.points), goal[found.order])
            return surprise(*parts, len(goal), fixed)

        if learn:
            self._finished(learned(model, cost, self.max_iter))
        with torch.no_grad():
            self.log_marginal_likelihood_ = -float(cost()) - len(goal) * float(np.log(unit))
            quadratic = self._settle(model, found, x, drawn, goal)
        self.noise_ = noise if fixed is not None else squared(unit, quadratic / len(goal))
        self.scale_ = squared(1.0, self.noise_ * self.ratio_)
        self.dual_coef_ = self.dual_coef_ * unit
        if found is None:
            self.loo_[0] = self.mean_ + unit * self.loo_[0]
        return self

    def _kernel(self, table: Array) -> Kernel:
        """The kernel to begin with; one by name is as wide as the rows are."""
        if isinstance(self.kernel, Kernel):
            return copy.deepcopy(self.kernel)
        with np.errstate(over="ignore", invalid="ignore"):
            same, spread = bool((np.ptp(table, axis=0) == 0).all()), float(table.var(0).sum())
        tiny = np.finfo(float).tiny
        if not same and not 2 * tiny < spread < 0.1 / tiny:
            raise Refused("X has variances that float64 does not hold: divide it by a power of two")
        return as_kernel(self.kernel, table.shape[1], gamma=None if same else 1 / (2 * spread))

    def _drawn(self, kernel: Kernel, x: Tensor) -> Tensor:
        marks, _ = landmarks_of(Gram(kernel, x), "rpcholesky", self.n_components, 0.0, self._rng())
        return tensor(marks.points)

    def _settle(self, model: Multiple, found: Placed | None, x: Tensor, drawn: Tensor, y: Tensor) -> float:
        """Takes over what predictions need; y (K + I)^-1 y."""
        self.kernel_, self.ratio_ = model.kernel, float(model.log_factor.exp())
        self.X_fit_ = drawn.numpy()
        if found is None:
            parts = thin(model, x, drawn, y)
            self.root_, self.core_ = parts.root.numpy(), parts.core.numpy()
            weights = torch.linalg.solve_triangular(parts.core.T, parts.projected[:, None], upper=True)
            dual = torch.linalg.solve_triangular(parts.root.T, weights, upper=True)[:, 0]
            self.dual_coef_ = self.ratio_ * dual.numpy()
            solved = torch.linalg.solve_triangular(parts.core, parts.features, upper=False)
            inverse = 1 - solved.square().sum(0)
            rests = y - parts.features.T @ weights[:, 0]
            self.loo_ = torch.stack([y - rests / inverse, inverse]).numpy()
            return float(y @ y - parts.projected.square().sum())
        if found.structure == "exact":
            root = rooted(model(x))
            self.root_ = root.numpy()
            dual = torch.cholesky_solve(y[:, None], root)[:, 0]
        else:
            dual = torch.empty_like(y)
            dual[found.order] = linalg.solve(model.gram(found.points), y[found.order], shift=1.0)
        self.dual_coef_ = self.ratio_ * dual.numpy()
        return float(y @ dual)

    def _explained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A and B (k, m) with A^T B what the rows fitted explain of the covariance of rows x, by that of the noise."""
        model, fitted = Multiple(self.kernel_, self.ratio_), tensor(self.X_fit_)
        across = finite(model(fitted, x))
        if self.structure_ in ("exact", "low-rank"):
            across = torch.linalg.solve_triangular(tensor(self.root_), across, upper=False)
        if self.structure_ == "exact":
            return across, across
        if self.structure_ == "low-rank":
            return across, across - torch.cholesky_solve(across, tensor(self.core_))
        found = placed(self.structure_, fitted, model)
        assert found is not None
        solved = torch.empty_like(across)
        solved[found.order] = linalg.solve(model.gram(found.points), across[found.order], shift=1.0)
        return across, solved

    @same_kind
    def _means(self, X: Any) -> Any:
        x = tensor(self._table(X))
        none = np.zeros(len(self.X_fit_), np.int64)
        return self.mean_ + combined(self.kernel_, x, self.X_fit_, none, self.dual_coef_)

    @same_kind
    @torch.no_grad()
    def _deviations(self, X: Any) -> Any:
        x = tensor(self._table(X))
        made = np.empty(len(x))
        for rows in blocks(len(x), len(self.X_fit_)):
            first, second = self._explained(x[rows])
            left = self.ratio_ * self.kernel_.diag(x[rows]) - (first * second).sum(0)
            made[rows] = np.sqrt(self.noise_ * left.clamp_min(0).numpy())
        return made

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Means of f at rows X (samples, features), and its standard deviations where they are asked for, (samples,).

        Of y there it is the root of the squared deviation and `noise_`.
        """
        check_is_fitted(self)
        X = X.array().numpy() if isinstance(X, Points) else X
        means = self._means(X)
        return (means, self._deviations(X)) if return_std else means

    @torch.no_grad()
    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Any:
        """Draws of f at rows X, jointly, (samples, n_samples).

        Raises:
            Refused: the covariance of X does not fit into memory.
        """
        check_is_fitted(self)
        at_least_one(n_samples=n_samples)
        means = self._means(X)
        x = tensor(self._table(X))
        own = Gram(self.kernel_, x).whole("sample_y", "fewer rows", 4)
        first, second = self._explained(x)
        covariance = self.ratio_ * own - first.T @ second
        generator = torch_generator(generator_from(random_state))
        slack = SLACK * float(own.diagonal().max()) * self.ratio_
        drawn = linalg.sample(Dense((covariance + covariance.T) / 2), n_samples, shift=slack, generator=generator)
        return back(np.asarray(means)[:, None] + (self.noise_**0.5 * drawn.T).numpy(), X)

    @torch.no_grad()
    def leave_one_out(self) -> tuple[Array, Array]:
        """Means and standard deviations of each y that was fitted, predicted from the others, (samples,) each.

        The parameters, and with "low-rank" the rows that were drawn, stay as they are. A Toeplitz or Kronecker matrix
        is solved with as many right sides as there are rows.
        """
        check_is_fitted(self)
        if self.structure_ == "low-rank":
            means, inverse = self.loo_
            return means, np.sqrt(self.noise_ / inverse)
        x, dual = tensor(self.X_fit_), self.dual_coef_ / self.ratio_
        n = len(x)
        if self.structure_ == "exact":
            root = tensor(self.root_)
            inverse = torch.linalg.solve_triangular(root, torch.eye(n, dtype=x.dtype), upper=False).square().sum(0)
        else:
            model = Multiple(self.kernel_, self.ratio_)
            found = placed(self.structure_, x, model)
            assert found is not None
            gram, inverse = model.gram(found.points), torch.empty(n, dtype=x.dtype)
            for rows in blocks(n, n):
                units = torch.eye(n, dtype=x.dtype)[:, rows]
                inverse[found.order[rows]] = (units * linalg.solve(gram, units, shift=1.0)).sum(0)
        diagonal = inverse.numpy()
        return self._means(self.X_fit_) + dual - dual / diagonal, np.sqrt(self.noise_ / diagonal)
