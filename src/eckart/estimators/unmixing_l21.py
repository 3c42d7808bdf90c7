"""Spectral unmixing that outlying bands do not spoil: residuals by the l2,1 norm, sparsity as each pixel has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Dense, number, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.simplex import corners, on_simplex, positive, quadratic_programs
from eckart.linalg.solution import Solution
from eckart.scikit.base import Estimator, at_least_one, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted

FLOOR = 1e-3
"""A band's residual counts as at least this share of the median band's, so that none is followed at any price."""
SMALLEST = 1e-3
"""Abundances below it are penalised as if they were it: |a|^p has an infinite slope at 0."""

RIDGE = 0.01
"""Of a regression on bands of norm 1."""


def band_weights(residual: Dense) -> Dense:
    """w_l = 1 / |r_l| for the columns r_l of residuals (pixels, bands): sum of w_l |.|^2 / 2 majorises sum of |.|."""
    norms = np.linalg.norm(residual, axis=0)
    floor = max(FLOOR * float(np.median(norms)), 1e-12 * float(norms.max(initial=0)))
    found: Dense = 1 / np.maximum(norms, floor) if floor > 0 else np.ones(len(norms))
    return found


def low_rank_weights(x: Dense, rank: int, *, rounds: int = 10) -> Dense:
    """Weights of bands (`band_weights`) by their residuals from a matrix of low rank, least in the l2,1 norm.

    A band that is an outlier would take a direction for itself and be followed to the end. So bands start by how much
    of them a ridge regression on all others leaves, which is 1 / (G^-1)_ll, G the Gram matrix of unit bands.
    """
    norms = np.linalg.norm(x, axis=0)
    ways = x / np.where(norms > 0, norms, 1.0)
    alone = 1 / np.diagonal(np.linalg.inv(ways.T @ ways + RIDGE * np.eye(x.shape[1])))
    weights: Dense = 1 / (np.square(np.where(norms > 0, norms, norms.max(initial=1.0))) * alone)
    for _ in range(rounds):
        scaled = x * np.sqrt(weights)
        small = scaled if len(scaled) <= scaled.shape[1] else scaled.T
        basis = np.linalg.svd(small @ small.T, hermitian=True)[0][:, :rank]
        near = basis @ (basis.T @ small)
        rest = (small - near) if small is scaled else (small - near).T
        weights = band_weights(rest / np.sqrt(weights))
    return weights


def mixing_level(abundances: Dense) -> Dense:
    """h (n,) in 0..1 of rows: Hoyer's sparsity (sqrt(k) - |a|_1 / |a|_2) / (sqrt(k) - 1); 1 where one entry is left."""
    k = abundances.shape[1]
    norms = np.linalg.norm(abundances, axis=1)
    ratio = np.abs(abundances).sum(axis=1) / np.where(norms > 0, norms, 1)
    if k == 1:
        return np.zeros(len(abundances))
    found: Dense = np.where(norms > 0, np.clip((np.sqrt(k) - ratio) / (np.sqrt(k) - 1), 0.0, 1.0), 0.0)
    return found


def abundances_of(
    x: Dense,
    endmembers: Dense,
    weights: Dense,
    penalty: float,
    start: Dense,
    *,
    sum_to_one: bool = True,
    tolerance: float = 1e-8,
) -> Dense:
    """argmin over a >= 0 of sum of w_l (x_l - a m_l)^2 / 2 + penalty |a|_p^p, p = 1 - h, linearised at the start."""
    scaled = endmembers * weights
    linear = x @ scaled.T
    if penalty > 0:
        p = 1 - mixing_level(start)[:, None]
        linear = linear - penalty * p * np.maximum(start, SMALLEST) ** (p - 1)
    project = on_simplex if sum_to_one else positive
    return quadratic_programs(scaled @ endmembers.T, linear, project, start, tolerance=tolerance)


def robust_unmixing(
    x: Dense,
    count: int,
    *,
    sparsity: float = 0.0,
    robust: bool = True,
    sum_to_one: bool = True,
    tolerance: float = 1e-3,
    max_iter: int = 100,
) -> Solution[tuple[Dense, Dense, Dense]]:
    """min over M, A >= 0 of sum over bands of |x_l - A m_l|_2 + lambda sum over pixels of |a_n|_p^p, p = 1 - h_n.

    Zhu et al. 2014 (arXiv 1409.0685). h_n is how sparse the pixel is in the step before (`mixing_level`). Norms are
    majorised by weighted squares, weights of 1/|residual of the band|; a step is a quadratic program for the rows of A
    and one for those of M, where the paper multiplies by ratios and needs many more.

    Args:
        x: (pixels, bands), without negative entries.
        count: k, endmembers.
        sparsity: lambda by the mean over pixels of the sum of |x_l|.
        robust: whether residuals count by their norm; else by their square, as in matrix factorization.
        sum_to_one: whether abundances of a pixel sum to one.
        tolerance: of the objective's relative change in a step at which this ends.
        max_iter: steps at most.

    Returns:
        Abundances A (pixels, k), endmembers M (k, bands) and weights (bands,) of the best step; `history` has the
        objective.
    """
    weights = low_rank_weights(x, min(count, *x.shape)) if robust else np.ones(x.shape[1])
    endmembers = x[corners(x * np.sqrt(weights), count)]
    abundances = np.full((len(x), count), 1 / count)
    scale = float(np.linalg.norm(x, axis=0).sum()) or 1.0
    penalty = sparsity * scale / len(x)
    inner = min(tolerance, 1e-4) / 10
    best, history = (abundances, endmembers, weights), [np.inf]
    while len(history) <= max_iter:
        abundances = abundances_of(x, endmembers, weights, penalty, abundances, sum_to_one=sum_to_one, tolerance=inner)
        gram, linear = abundances.T @ abundances, x.T @ abundances
        endmembers = quadratic_programs(gram, linear, positive, endmembers.T, tolerance=inner, max_iter=200).T
        rest = x - abundances @ endmembers
        fit = float(np.linalg.norm(rest, axis=0).sum()) if robust else float(np.square(rest).sum()) / 2
        powers = abundances ** (1 - mixing_level(abundances)[:, None])
        value = fit + penalty * float(powers[abundances > 0].sum())
        if value <= min(history):
            best = abundances, endmembers, weights
        history.append(value)
        if robust:
            weights = band_weights(rest)
        if value <= 1e-12 * scale or abs(history[-2] - value) <= tolerance * value:
            break
    converged = history[-1] <= 1e-12 * scale or abs(history[-2] - history[-1]) <= tolerance * history[-1]
    message = f"the objective was {history[-1]:.3e} after {len(history) - 1} steps, {history[-2]:.3e} one before"
    return Solution(best, bool(converged), len(history) - 1, tuple(history[1:]), message)


def _planted(rng: np.random.Generator) -> Planted:
    bands = np.linspace(0, 1, 30)
    endmembers = np.array([1.2 + np.sin(6 * bands), 0.3 + bands, np.exp(-30 * (bands - 0.4) ** 2) + 0.1])
    abundances = rng.dirichlet(np.full(3, 0.4), 80)
    x = abundances @ endmembers
    x[:, [5, 20]] = rng.uniform(0, 5, (80, 2))
    return Planted(
        {"X": x},
        lambda fitted: np.abs(np.sort(fitted.transform(x), axis=1) - np.sort(abundances, axis=1)).mean(),
        0.02,
        {"n_components": 3},
    )


@estimator(
    "unmixing-l21",
    paper="Zhu, Wang, Fan, Meng and Pan 2014, arXiv 1409.0685",
    kind="transformer",
    gives="endmembers, abundances of new pixels",
    planted=_planted,
    expression="Chain(Dense, Dense)",
)
class RobustUnmixing(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Pixels as mixtures of a few spectra, from which bands that follow no mixture take nothing.

    Solves `robust_unmixing` from corners of the cloud of pixels (`eckart.linalg.simplex.corners`). Nothing is random.

    Args:
        n_components: endmembers.
        sparsity: of abundances, by the mean of a pixel; 0 for none.
        robust: whether residuals of bands count by their norms; else by their squares.
        sum_to_one: whether abundances of a pixel sum to one.
        tol: of the objective's relative change in a step.
        max_iter: steps at most.

    Attributes:
        components_: endmembers, (n_components, features).
        band_weights_: (features,), 1 / |residual of the band|, small where a band is an outlier.
        penalty_: lambda.
        unit_: a power of two by which all is divided, so that squares stay finite.
        n_iter_, converged_, history_: steps, whether `tol` was reached, and the objective step by step.
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        sparsity: float = 0.0,
        robust: bool = True,
        sum_to_one: bool = True,
        tol: float = 1e-3,
        max_iter: int = 100,
    ) -> None:
        self.n_components = n_components
        self.sparsity = sparsity
        self.robust = robust
        self.sum_to_one = sum_to_one
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any = None) -> RobustUnmixing:
        """Finds endmembers in pixels X (samples, bands); itself."""
        table = self._pixels(X, fit=True)
        at_least_one(n_components=self.n_components)
        if not 0 <= number(self.sparsity) < np.inf:
            raise Refused(f"sparsity={self.sparsity!r} is no number from 0 on")
        self.unit_ = power_of_two(table)
        solution = robust_unmixing(
            table / self.unit_,
            self.n_components,
            sparsity=self.sparsity,
            robust=self.robust,
            sum_to_one=self.sum_to_one,
            tolerance=self.tol,
            max_iter=self.max_iter,
        )
        _, endmembers, self.band_weights_ = solution.value
        self.components_ = np.ascontiguousarray(endmembers) * self.unit_
        norms = float(np.linalg.norm(table / self.unit_, axis=0).sum())
        self.penalty_ = self.sparsity * norms / len(table)
        self._n_features_out = self.n_components
        self._finished(solution)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Abundances (samples, n_components) of pixels, by the bands' weights."""
        pixels = self._pixels(X) / self.unit_
        found = np.full((len(pixels), self.n_components), 1 / self.n_components)
        for penalty in (0.0, *((self.penalty_,) * 5 if self.penalty_ > 0 else ())):
            found = abundances_of(
                pixels,
                self.components_ / self.unit_,
                self.band_weights_,
                penalty,
                found,
                sum_to_one=self.sum_to_one,
            )
        return found

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Pixels (samples, bands) from their abundances."""
        return np.asarray(X, np.float64) @ self.components_

    def _pixels(self, X: Any, *, fit: bool = False) -> Dense:
        table: Dense = self._table(X, fit=fit)
        if (table < 0).any():
            raise Refused(
                f"Negative values in data passed to {type(self).__name__}: {int((table < 0).sum())} entries of X are "
                "below 0, and spectra have none"
            )
        return table

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
