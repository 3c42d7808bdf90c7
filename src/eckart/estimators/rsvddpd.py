"""A robust SVD by density power divergence: a matrix of low rank under outliers, each entry weighted by its fit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from eckart.arrays import Array, Dense, observed, power_of_two
from eckart.errors import Refused
from eckart.estimators._subspace import RobustSubspace
from eckart.estimators.contract import estimator
from eckart.linalg.least_absolute import least_absolute_scores
from eckart.linalg.solution import Solution
from eckart.linalg.thresholded_svd import ThinSVD
from eckart.scikit.base import at_least_one, same_kind
from eckart.scikit.planted import Planted

NORMAL = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""
SWEEPS = 10
"""Of each direction before the next is begun; all are fitted together afterwards."""
FLOOR = 2.0**-40
"""The least scale, by the largest entry."""


def robust_svd(
    x: Array, rank: int, alpha: float = 0.3, *, tolerance: float = 1e-6, max_iter: int = 300
) -> Solution[tuple[ThinSVD, float]]:
    """argmin over L of rank r of sum over observed entries of (1 - exp(-alpha (x - l)^2 / (2 s^2))) / alpha.

    The divergence of Basu et al. 1998 between the entries and Normal(L, s^2), whose density has a factor of its own as
    s is held. With L = C D^T it is least where C and D are least-squares fits of each other under the weights

        W = exp(-alpha (x - l)^2 / (2 s^2)),

    and it falls in each such fit, as the weights' parabola lies above the loss and touches it. alpha = 0 is the SVD.

    Roy, Basu and Ghosh 2023 (arXiv 2109.10680) take one direction after the other from a
    start of ones, with s = 1 after division by the interquartile range: where the range is far below the entries, as
    on a background that stands still, all weights underflow. Here the start is the least absolute fit to medians, s is
    the median absolute deviation as long as it falls, weights are relative to the largest of their row or column, and
    all directions are fitted together in the end, again from a least absolute fit.

    Args:
        x: (rows, columns), NaN where nothing was observed.
        rank: r, 1 to min(rows, columns).
        alpha: 0 to 1, what an outlier loses: of normal entries 1 - 1 / (1 + alpha)^(3/2) is lost too.
        tolerance: of the change of L in a sweep, by L in the Frobenius norm over what was observed.
        max_iter: sweeps at most.

    Returns:
        L by its singular vectors, and s; `history` has the change sweep by sweep.

    Raises:
        Refused: nothing is observed, an entry is infinite, or an argument is out of its range.
    """
    at_least_one(max_iter=max_iter)
    x, seen = observed(x)
    if not 1 <= rank <= min(x.shape):
        raise Refused(f"rank={rank} is not in 1..{min(x.shape)}")
    if not 0 <= alpha <= 1:
        raise Refused(f"alpha={alpha} is not in 0..1")
    unit = power_of_two(x)
    x = x / unit
    c, d, scale = np.zeros((len(x), 0)), np.zeros((x.shape[1], 0)), np.inf
    for _ in range(rank):
        rest = np.where(seen, x - c @ d.T, 0.0)
        one, other = _least_absolute(rest, seen)
        for _ in range(SWEEPS if rank > 1 else 0):
            one, other, _ = _sweep(rest, seen, one, other, alpha, np.inf)
        c, d = np.hstack([c, one]), np.hstack([d, other])
    if rank > 1:
        c = np.linalg.qr(least_absolute_scores(x, seen, np.linalg.qr(d)[0]))[0]
        d = least_absolute_scores(x.T, seen.T, c)
    history: list[float] = []
    fit = c @ d.T
    while len(history) < max_iter and (not history or history[-1] > tolerance):
        c, d, scale = _sweep(x, seen, c, d, alpha, scale)
        before, fit = fit, c @ d.T
        size = float(np.linalg.norm(fit[seen]))
        history.append(float(np.linalg.norm((fit - before)[seen])) / size if size else 0.0)
    (q, r), (p, s) = np.linalg.qr(c), np.linalg.qr(d)
    u, values, v = np.linalg.svd(r @ s.T)
    message = f"L changed by {history[-1]:.1e} of itself in the last of {len(history)} sweeps"
    value = ThinSVD(q @ u, values * unit, p @ v.T), scale * unit
    return Solution(value, history[-1] <= tolerance, len(history), tuple(history), message)


def weighted_scores(
    x: Dense, seen: Dense, d: Dense, alpha: float, scale: float, c: Dense, *, sweeps: int = 1, tolerance: float = 0.0
) -> Dense:
    """Scores (rows, r) of rows x on d (columns, r): least squares under the weights at c, again for each sweep.

    What the entries that count say nothing about stays as it was. A row is done where its change is within `tolerance`.
    """
    pairs = (d[:, :, None] * d[:, None, :]).reshape(len(d), -1)
    c, going = c.copy(), np.arange(len(x))
    for _ in range(sweeps):
        rest = x[going] - c[going] @ d.T
        w = _weights(rest, seen[going], alpha, scale)
        gram = (w @ pairs).reshape(len(going), d.shape[1], d.shape[1])
        step = (np.linalg.pinv(gram, hermitian=True) @ ((w * rest) @ d)[:, :, None])[:, :, 0]
        c[going] += step
        going = going[np.linalg.norm(step, axis=1) > tolerance * np.linalg.norm(c[going], axis=1)]
        if not len(going):
            break
    return c


def _sweep(x: Dense, seen: Dense, c: Dense, d: Dense, alpha: float, scale: float) -> tuple[Dense, Dense, float]:
    """C and D fitted to each other in turn, and a scale that does not grow; the columns of C come out of length one."""
    scale = min(scale, _deviation(x - c @ d.T, seen))
    c, d = _balanced(weighted_scores(x, seen, d, alpha, scale, c), d)
    return c, weighted_scores(x.T, seen.T, c, alpha, scale, d), scale


def _balanced(c: Dense, d: Dense) -> tuple[Dense, Dense]:
    """C D^T with columns of length one in C, where they are not zero."""
    length = np.linalg.norm(c, axis=0)
    length[length == 0] = 1.0
    return c / length, d * length


def _weights(rest: Dense, seen: Dense, alpha: float, scale: float) -> Dense:
    """W by its largest in each row, 0 where nothing was observed."""
    exponent = np.where(seen, np.square(rest / scale) * (alpha / 2), np.inf)
    least = exponent.min(axis=1, keepdims=True)
    found: Dense = np.exp(np.where(np.isfinite(least), least, 0.0) - exponent)
    return found


def _deviation(rest: Dense, seen: Dense) -> float:
    return max(NORMAL * float(np.median(np.abs(rest[seen]))), FLOOR)


def _least_absolute(x: Dense, seen: Dense) -> tuple[Dense, Dense]:
    """c (rows, 1) and d (columns, 1) of small |x - c d^T|_1: from medians of columns, or an SVD without extremes."""
    size = np.median(np.abs(x[seen]))
    right = np.linalg.svd(np.clip(x, -3 * size, 3 * size), full_matrices=False)[2][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        medians = np.nan_to_num(np.nanmedian(np.where(seen, x, np.nan), axis=0))
    best, found = np.inf, (np.zeros((len(x), 1)), np.zeros((x.shape[1], 1)))
    for start in (right, medians):
        c = weighted_median_scores(x, seen, start)
        d = weighted_median_scores(x.T, seen.T, c)
        error = float(np.abs((x - np.outer(c, d))[seen]).sum())
        if error < best:
            best, found = error, (c[:, None], d[:, None])
    return found


def weighted_median_scores(x: Dense, seen: Dense, d: Dense) -> Dense:
    """argmin over c_i of sum_j |x_ij - c_i d_j|: the median of x_ij / d_j under the weights |d_j|."""
    weights = np.where(seen, np.abs(d), 0.0)
    ratios = np.divide(x, d, out=np.zeros_like(x), where=weights > 0)
    order = np.argsort(ratios, axis=1)
    reached = np.cumsum(np.take_along_axis(weights, order, 1), axis=1)
    place = (reached < reached[:, -1:] / 2).sum(axis=1, keepdims=True)
    chosen: Dense = np.take_along_axis(ratios, np.take_along_axis(order, place, 1), 1)[:, 0]
    return chosen


def _planted(rng: np.random.Generator) -> Planted:
    low = rng.uniform(100, 140, (1, 30)) * rng.uniform(0.9, 1.1, (40, 1))
    low += 10 * np.outer(rng.standard_normal(40), rng.standard_normal(30))
    spoilt = np.where(rng.random(low.shape) < 0.1, low + 150, low + 0.1 * rng.standard_normal(low.shape))
    return Planted(
        {"X": np.where(rng.random(low.shape) < 0.05, np.nan, spoilt)},
        lambda fitted: np.linalg.norm(fitted.inverse_transform(fitted.embedding_) - low) / np.linalg.norm(low),
        1e-3,
        {"n_components": 2},
    )


@estimator(
    "rsvddpd",
    paper="Roy, Basu and Ghosh 2023, arXiv 2109.10680",
    kind="transformer",
    gives="a robust SVD, robust scores of new rows",
    takes="NaN as missing",
    planted=_planted,
    expression="Chain(Dense, Diagonal, Dense)",
)
class RobustSVD(RobustSubspace):
    """A robust SVD by density power divergence: a table of low rank under outliers, each entry weighted by its fit.

    Fits `robust_svd`; nothing is centred. New rows are put on the subspace under the same weights, from a start by
    least absolute deviations.

    Args:
        n_components: the rank.
        alpha: 0 for the SVD, 1 for the most robust fit.
        tol: of the change of the fit in a sweep.
        max_iter: sweeps at most.

    Attributes:
        components_: orthonormal right singular vectors, (n_components, features).
        singular_values_: (n_components,).
        embedding_: scores of the rows that were fitted, (samples, n_components).
        scale_: standard deviation of what is no outlier about the fit.
        n_iter_, converged_, history_: sweeps, whether `tol` was reached, and the change sweep by sweep.
    """

    def __init__(self, n_components: int = 1, alpha: float = 0.3, *, tol: float = 1e-6, max_iter: int = 300) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any = None) -> RobustSVD:
        """Fits X (samples, features), NaN where nothing was observed; itself."""
        table = self._table(X, fit=True, ensure_all_finite="allow-nan")
        solution = robust_svd(table, self.n_components, self.alpha, tolerance=self.tol, max_iter=self.max_iter)
        found, self.scale_ = solution.value
        self._spanned(found)
        self.embedding_ = found.left * found.values
        self._finished(solution)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Robust scores (samples, n_components) of rows; 0 where nothing is observed of a row."""
        table = self._table(X, ensure_all_finite="allow-nan")
        seen = ~np.isnan(table)
        x, scale = np.where(seen, table, 0.0), self.scale_
        unit = power_of_two(np.array(scale))
        start = least_absolute_scores(x / unit, seen, self.components_.T)
        return unit * weighted_scores(
            x / unit,
            seen,
            self.components_.T,
            self.alpha,
            scale / unit,
            start,
            sweeps=self.max_iter,
            tolerance=self.tol,
        )
