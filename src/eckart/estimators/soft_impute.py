"""Soft-Impute: a table with missing entries completed by one of small nuclear norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import Array, Dense, entries, power_of_two
from eckart.estimators._completion import Completion, column_means
from eckart.estimators.contract import estimator
from eckart.linalg.batched_ridge import Ragged, batched_ridge
from eckart.linalg.solution import Solution
from eckart.linalg.sparse_plus_low_rank import SparsePlusLowRank, entries_of
from eckart.linalg.thresholded_svd import ThinSVD, spectral_norm, thresholded_svd
from eckart.scikit.base import at_least_one, generator_from, positive
from eckart.scikit.planted import Planted

PATH = 10
"""Penalties on the way down to the one that is asked for."""
LEAST = 0.01
"""Of the penalty at which all is zero: the least that is tried where none is asked for."""
HELD_OUT = 0.1
"""Of the entries, for the choice of a penalty."""


def soft_impute(
    m: Array,
    penalty: float,
    *,
    rank: int | None = None,
    start: ThinSVD | None = None,
    tolerance: float = 1e-5,
    max_iter: int = 300,
    generator: int | np.random.Generator | None = None,
) -> Solution[ThinSVD]:
    """min over Z of 1/2 |P(M - Z)|^2 + lambda |Z|_*, P keeping what is observed of M.

    Mazumder, Hastie and Tibshirani 2010, algorithm 1: with D the shrinkage of singular values,

        Z <- D_lambda(P(M) + P'(Z)) = D_lambda(P(M - Z) + Z),

    a sparse matrix plus one of low rank, of which only products are taken; singular vectors start those of the next
    step. Between steps Z is carried on by Nesterov's momentum, which is dropped where the objective rises.

    Args:
        m: (rows, columns), dense with NaN where nothing was observed; or sparse, what it stores being observed.
        penalty: lambda, positive, in units of M.
        rank: of Z at most; None for no bound.
        start: Z to begin from; zero where it is None.
        tolerance: of the change of Z in a step, by Z in the Frobenius norm.
        max_iter: steps at most.
        generator: a seed or generator, of random directions beside those of the step before.

    Returns:
        Z by its singular vectors; `history` has the objective by that of zero.

    Raises:
        Refused: nothing is observed, an entry is infinite, or the penalty is not positive.
    """
    positive(penalty=penalty)
    at_least_one(max_iter=max_iter)
    rng, x = generator_from(generator), entries(m)
    unit = power_of_two(x.data)
    row, column, values, lam = _rows_of(x), x.indices, x.data / unit, penalty / unit
    z = _nothing(x) if start is None else ThinSVD(start.left, start.values / unit, start.right)
    whole = max(float(np.square(values).sum()) / 2, np.finfo(float).tiny)

    def at(of: ThinSVD) -> Dense:
        return entries_of(of.left * of.values, of.right, row, column)

    def objective(of: ThinSVD, filled: Dense) -> float:
        return float(np.square(values - filled).sum() / 2 + lam * of.values.sum()) / whole

    filled = at(z)
    history, before, filled_before, speed = [objective(z, filled)], z, filled, 1.0
    change, accuracy = np.inf, 1e-4
    while len(history) <= max_iter and change > tolerance:
        faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
        pace = (speed - 1) / faster
        rest = sparse.csr_array((values - filled - pace * (filled - filled_before), x.indices, x.indptr), x.shape)
        left = np.hstack([(1 + pace) * z.left * z.values, -pace * before.left * before.values])
        step = SparsePlusLowRank(rest, left, np.hstack([z.right, before.right]))
        new = _shrunk(thresholded_svd(step, lam, z.right, rng, tolerance=accuracy, steps=6, most=rank), lam, rank)
        filled_new = at(new)
        reached = objective(new, filled_new)
        if reached > history[-1]:
            if speed == 1 and accuracy < 1e-10:
                change = 0.0
            accuracy = accuracy / 100 if speed == 1 else accuracy
            before, filled_before, speed = z, filled, 1.0
            continue
        change = _distance(new, z) / max(float(np.linalg.norm(new.values)), np.finfo(float).tiny)
        before, filled_before, z, filled, speed = z, filled, new, filled_new, faster
        history.append(reached)
    message = f"Z changed by {change:.1e} of itself in the last of {len(history) - 1} steps"
    value = ThinSVD(z.left, z.values * unit, z.right)
    return Solution(value, change <= tolerance, len(history) - 1, tuple(history), message)


def held_out_penalty(
    x: sparse.csr_array, rank: int | None, tolerance: float, max_iter: int, generator: np.random.Generator
) -> float:
    """The penalty along a decreasing path at which a tenth of the entries is predicted best from the others."""
    chosen = generator.random(x.nnz) < HELD_OUT
    unit, row = power_of_two(x.data), _rows_of(x)
    kept = sparse.csr_array((x.data[~chosen], (row[~chosen], x.indices[~chosen])), x.shape)
    if not chosen.any() or not kept.nnz:
        return LEAST * _largest_penalty(_centred(x)[0], generator)
    centred, mean = _centred(kept)
    target = (x.data - mean[x.indices])[chosen] / unit
    most = _largest_penalty(centred, generator)
    if most == 0:
        return 0.0
    z, best, share, worse = _nothing(x), float(np.square(target).sum()), 1.0, 0
    for at in np.geomspace(1, LEAST, PATH + 1)[1:]:
        z = soft_impute(
            centred, at * most, rank=rank, start=z, tolerance=10 * tolerance, max_iter=max_iter, generator=generator
        ).value
        found = entries_of(z.left * (z.values / unit), z.right, row[chosen], x.indices[chosen])
        error = float(np.square(target - found).sum())
        worse = 0 if error < best else worse + 1
        if worse > 1:
            break
        best, share = min((best, share), (error, float(at)))
    return share * _largest_penalty(_centred(x)[0], generator)


def _planted(rng: np.random.Generator) -> Planted:
    low = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    return Planted(
        {"X": np.where(rng.random(low.shape) < 0.3, np.nan, low)},
        lambda fitted: np.linalg.norm(fitted.inverse_transform(fitted.embedding_) - low) / np.linalg.norm(low),
        0.06,
        {"penalty": 0.5},
        {"scale": "the penalty is in units of X"},
    )


@estimator(
    "soft-impute",
    paper="Mazumder, Hastie and Tibshirani 2010, JMLR 11, 2287-2322",
    kind="transformer",
    gives="a low-rank completion, scores of new rows",
    takes="NaN as missing; sparse, where what is stored is observed",
    planted=_planted,
    expression="Chain(Dense, Dense)",
)
class SoftImpute(Completion):
    """Soft-Impute: a table with missing entries completed by one of small nuclear norm.

    The means of the columns are taken off, and `soft_impute` is followed along decreasing penalties. Of a sparse table
    nothing of its whole size is made, as long as the rank stays below a third of its shorter side. New rows are put
    on the factors that were found by the ridge regression to which the nuclear norm comes down, so that the rows that
    were fitted get the scores that they have.

    With a bound on the rank the same minimum is that of two thin factors under a ridge (Hastie, Mazumder, Lee and Zadeh
    2015), to which alternating regressions come: `completion-altmin` takes these, with a ridge by the count of entries.

    Args:
        penalty: lambda, in units of X; None for the one at which a tenth of the entries, held out, is predicted best.
        max_rank: of the completion; None for no bound.
        tol: of the change in a step, by the whole.
        max_iter: steps at most, for each of ten penalties.
        random_state: of the entries that are held out, and of directions beside those of the step before.

    Attributes:
        penalty_: lambda.
        components_: orthonormal right singular vectors of the completion, (rank, features).
        singular_values_: (rank,).
        embedding_: scores of the rows that were fitted, (samples, rank).
        mean_: of the columns over what was observed, (features,); the overall mean where nothing was.
        n_iter_, converged_, history_: steps at the last penalty, whether `tol` was reached, and the objective by that
            of zero step by step.
    """

    def __init__(
        self,
        penalty: float | None = None,
        *,
        max_rank: int | None = None,
        tol: float = 1e-5,
        max_iter: int = 300,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.penalty = penalty
        self.max_rank = max_rank
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> SoftImpute:
        """Completes X (samples, features): NaN, or not stored where it is sparse, is missing; itself."""
        if self.max_rank is not None:
            at_least_one(max_rank=self.max_rank)
        x, rng = self._entries(X, fit=True), generator_from(self.random_state)
        options: dict[str, Any] = {"rank": self.max_rank, "max_iter": self.max_iter, "generator": rng}
        centred, self.mean_ = _centred(x)
        most = _largest_penalty(centred, rng)
        if self.penalty is None:
            # Where all is zero, so is what every penalty gives.
            self.penalty_ = held_out_penalty(x, self.max_rank, self.tol, self.max_iter, rng) or 1.0
        else:
            self.penalty_ = positive(penalty=self.penalty)
        z = _nothing(x)
        for at in np.geomspace(max(most, self.penalty_), self.penalty_, PATH)[1:-1] if self.penalty_ < most else ():
            z = soft_impute(centred, at, start=z, tolerance=10 * self.tol, **options).value
        solution = soft_impute(centred, self.penalty_, start=z, tolerance=self.tol, **options)
        z = solution.value
        self.components_, self.singular_values_ = np.ascontiguousarray(z.right.T), z.values
        self.embedding_ = z.left * z.values
        self._n_features_out = len(z.values)
        self._finished(solution)
        return self

    def _scores(self, x: sparse.csr_array) -> Dense:
        """Scores A sqrt(D): with B = V sqrt(D), lambda |Z|_* is the least lambda/2 (|A|^2 + |B|^2) of Z = A B^T."""
        unit = float(self.singular_values_.max(initial=0.0)) or 1.0
        root = np.sqrt(self.singular_values_ / unit)
        values = (x.data - self.mean_[x.indices]) / unit
        penalty = np.full(x.shape[0], self.penalty_ / unit)
        found = batched_ridge(Ragged(x.indptr, x.indices), values, self.components_.T * root, penalty)
        return found * (root * unit)


def _rows_of(x: sparse.csr_array) -> Dense:
    return np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))


def _nothing(x: sparse.csr_array) -> ThinSVD:
    return ThinSVD(np.zeros((x.shape[0], 0)), np.zeros(0), np.zeros((x.shape[1], 0)))


def _centred(x: sparse.csr_array) -> tuple[sparse.csr_array, Dense]:
    mean, _ = column_means(x)
    return sparse.csr_array((x.data - mean[x.indices], x.indices, x.indptr), x.shape), mean


def _largest_penalty(x: sparse.csr_array, generator: np.random.Generator) -> float:
    """|P(M)|_2, above which Z = 0."""
    unit = power_of_two(x.data)
    return spectral_norm(x / unit, generator) * unit if x.nnz and np.abs(x.data).max() > 0 else 0.0


def _shrunk(found: ThinSVD, threshold: float, rank: int | None) -> ThinSVD:
    kept = int((found.values > threshold).sum()) if rank is None else min(rank, int((found.values > threshold).sum()))
    return ThinSVD(found.left[:, :kept], found.values[:kept] - threshold, found.right[:, :kept])


def _distance(one: ThinSVD, other: ThinSVD) -> float:
    """|A - B| in the Frobenius norm, from their singular vectors."""
    cross = (one.left.T @ other.left) * (one.right.T @ other.right)
    squares = np.square(one.values).sum() + np.square(other.values).sum() - 2 * one.values @ cross @ other.values
    return float(np.sqrt(max(squares, 0.0)))
