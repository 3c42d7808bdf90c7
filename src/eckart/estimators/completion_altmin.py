"""Completion by alternating ridge regressions, with biases: a table of ratings as a product of thin factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from scipy import sparse

from eckart.arrays import Array, Dense, entries, of_dask, power_of_two, row_blocks
from eckart.errors import Refused
from eckart.estimators._completion import Completion
from eckart.estimators._row_blocks import ridge_by_blocks
from eckart.estimators.contract import estimator
from eckart.linalg.batched_ridge import Ragged, Solver, batched_ridge
from eckart.linalg.solution import Solution
from eckart.linalg.sparse_plus_low_rank import entries_of
from eckart.scikit.base import at_least_one, generator_from
from eckart.scikit.planted import Planted

SPREAD = 0.1
"""Standard deviation of the factors that it begins with, those of the data being 1."""
STEPS = 3
"""Of conjugate gradients in a regression that starts from the sweep before."""


@dataclass(frozen=True)
class Factors:
    """x_ij = mean + spread ([p_i, b_i] . [q_j, 1] + c_j).

    Attributes:
        rows: [p_i, b_i], (rows, rank + 1).
        columns: [q_j, c_j], (columns, rank + 1).
        mean: of all that is observed.
        spread: its standard deviation.
    """

    rows: Dense
    columns: Dense
    mean: float
    spread: float

    def at(self, row: Dense, column: Dense) -> Dense:
        """Entries (pairs,) at pairs of indices."""
        products = entries_of(self.rows[:, :-1], self.columns[:, :-1], row, column)
        found: Dense = self.mean + self.spread * (products + self.rows[row, -1] + self.columns[column, -1])
        return found


def alternating_ridge(
    m: Array,
    rank: int,
    penalty: float = 0.1,
    *,
    solver: Solver = "cholesky",
    tolerance: float = 1e-4,
    max_iter: int = 100,
    generator: int | np.random.Generator | None = None,
) -> Solution[Factors]:
    """min over the factors of sum over observed (i, j) of (z_ij - p_i . q_j - b_i - c_j)^2 and a ridge, z standardized.

    The ridge is lambda (|W_i| |[p_i, b_i]|^2 + |W_j| |[q_j, c_j]|^2), with |W_i| what is observed of row i and |W_j|
    of column j (Zhou et al. 2008), so that one lambda suits rows of few entries and of many. With the columns fixed,
    each row is a ridge regression of z - c on [q, 1], and the other way round: the biases are columns of the factors
    whose partner is 1.

    The exact regressions of Jain, Netrapalli and Sanghavi 2013 (arXiv 1212.0467) cost nnz k^2 a sweep. Gu et al. 2023
    (arXiv 2302.11068) show that inexact ones will do, in nnz k: they precondition each by a sketch. A row of a table of
    ratings is shorter than its sketch would be; "cg" takes three steps of conjugate gradients from where the sweep
    before ended instead. Entries are not split into parts for the sweeps, which their proof asks for.

    Args:
        m: (rows, columns), dense with NaN where nothing was observed; or sparse, what it stores being observed.
        rank: k, of the factors beside the biases; 0 for these alone.
        penalty: lambda, positive; the entries' variance is 1 beside it.
        solver: "cholesky" or "cg".
        tolerance: of the fall of the objective in a sweep, by itself.
        max_iter: sweeps at most.
        generator: a seed or generator, of the factors to begin with.

    Returns:
        The factors; `history` has the objective by the number of entries, after each sweep.

    Raises:
        Refused: nothing is observed, an entry is infinite, or an argument is out of its range.
    """
    x = entries(m)
    _checked(rank, penalty, solver, max_iter)
    rng = generator_from(generator)
    mean, spread, z = _standardized(x.data)
    numbered = sparse.csr_array((np.arange(x.nnz), x.indices, x.indptr), x.shape).tocsc()
    by_rows, by_columns = Ragged(x.indptr, x.indices), Ragged(numbered.indptr, numbered.indices)
    row = np.repeat(np.arange(x.shape[0]), by_rows.counts)
    p = begun(x.shape[0], rank, rng)
    found = Factors(p, np.zeros((x.shape[1], rank + 1)), mean, spread)
    best, history, fall = found, [1.0], np.inf
    while len(history) <= max_iter and fall > tolerance:
        q = _regressed(by_columns, z[numbered.data], found.rows, found.columns, penalty, solver)
        p = _regressed(by_rows, z, q, found.rows, penalty, solver)
        found = Factors(p, q, mean, spread)
        rest = z - replace(found, mean=0.0, spread=1.0).at(row, x.indices)
        ridge = by_rows.counts @ np.square(p).sum(1) + by_columns.counts @ np.square(q).sum(1)
        reached = float(np.square(rest).sum() + penalty * ridge) / x.nnz
        fall = (history[-1] - reached) / max(history[-1], np.finfo(float).tiny)
        if reached <= min(history):
            best = found
        history.append(reached)
    message = f"the objective fell by {fall:.1e} of itself in the last of {len(history) - 1} sweeps"
    return Solution(best, fall <= tolerance, len(history) - 1, tuple(history), message)


def _checked(rank: int, penalty: float, solver: Solver, max_iter: int) -> None:
    at_least_one(max_iter=max_iter)
    if rank < 0:
        raise Refused(f"rank={rank}, and at least 0 is needed, which is of biases alone")
    if not 0 < penalty < np.inf:
        raise Refused(f"penalty={penalty}, and a positive one is needed")
    if solver not in get_args(Solver):
        raise Refused(f"solver={solver!r} is none of {', '.join(get_args(Solver))}")


def begun(rows: int, rank: int, rng: np.random.Generator) -> Dense:
    """[p_i, 0] to begin with, (rows, rank + 1)."""
    p = rng.standard_normal((rows, rank + 1)) * SPREAD
    p[:, -1] = 0
    return p


def _regressed(pattern: Ragged, values: Dense, fixed: Dense, start: Dense, penalty: float, solver: Solver) -> Dense:
    """[p_i, b_i] of each row of the pattern by [q_j, c_j] of the others; and the other way round."""
    design = np.hstack([fixed[:, :-1], np.ones((len(fixed), 1))])
    ridge = penalty * pattern.counts
    target = values - fixed[pattern.indices, -1]
    return batched_ridge(pattern, target, design, ridge, solver=solver, start=start, steps=STEPS)


def _standardized(values: Dense) -> tuple[float, float, Dense]:
    """Mean, standard deviation (1 where it is 0), and the values in these terms."""
    unit = power_of_two(values)
    values = values / unit
    mean = float(values.mean())
    rest = values - mean
    spread = float(np.sqrt(np.mean(np.square(rest))))
    spread = spread if spread > 16 * np.finfo(float).eps * abs(mean) else 1.0
    return mean * unit, spread * unit, rest / spread


def _planted(rng: np.random.Generator) -> Planted:
    low = 3 + rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30)) + rng.standard_normal(30)
    return Planted(
        {"X": np.where(rng.random(low.shape) < 0.3, np.nan, low)},
        lambda fitted: np.linalg.norm(fitted.inverse_transform(fitted.embedding_) - low) / np.linalg.norm(low - 3),
        0.04,
        {"n_components": 2, "penalty": 0.01},
    )


@estimator(
    "completion-altmin",
    paper="Gu et al. 2023, arXiv 2302.11068; Zhou et al. 2008",
    kind="transformer",
    gives="factors with biases, scores of new rows",
    takes="NaN as missing; sparse, where what is stored is observed; arrays of Dask",
    planted=_planted,
    expression="Chain(Dense, Dense)",
)
class AlternatingCompletion(Completion):
    """Completion by alternating ridge regressions, with biases: a table of ratings as a product of thin factors.

    Fits `alternating_ridge`. New rows are put on the columns' factors by the same regression, so that the rows that
    were fitted get the scores that they have.

    Args:
        n_components: factors beside the biases; 0 for these alone.
        penalty: of the ridge; the entries are standardized, so that it does not depend on their scale.
        solver: "cholesky", exact; or "cg", three steps of conjugate gradients.
        tol: of the fall of the objective in a sweep.
        max_iter: sweeps at most.
        random_state: of the factors to begin with.

    Attributes:
        embedding_: factors and bias of the rows that were fitted, (samples, n_components + 1).
        components_: factors of the columns, (n_components + 1, features); ones in the last row, the partner of biases.
        mean_: overall mean and bias of the columns, (features,): what a row of which nothing is known gets.
        spread_: standard deviation of what was observed.
        n_iter_, converged_, history_: sweeps, whether `tol` was reached, and the objective sweep by sweep.
    """

    def __init__(
        self,
        n_components: int = 10,
        penalty: float = 0.1,
        *,
        solver: Solver = "cholesky",
        tol: float = 1e-4,
        max_iter: int = 100,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.penalty = penalty
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> AlternatingCompletion:
        """Factors X (samples, features): NaN, or not stored where it is sparse, is missing; itself.

        An array of Dask is read block after block of its rows, once a sweep and once before, and is never together: the
        factors and (n_components + 1)^2 numbers a column are held. The columns' regressions are exact then.
        """
        if of_dask(X):
            solution = self._by_blocks(X)
        else:
            solution = alternating_ridge(
                self._entries(X, fit=True),
                self.n_components,
                self.penalty,
                solver=self.solver,
                tolerance=self.tol,
                max_iter=self.max_iter,
                generator=generator_from(self.random_state),
            )
        found = solution.value
        self.spread_ = found.spread
        self.embedding_ = found.rows * found.spread
        self.components_ = np.vstack([found.columns[:, :-1].T, np.ones(len(found.columns))])
        self.mean_ = found.mean + found.spread * found.columns[:, -1]
        self._n_features_out = self.n_components + 1
        self._finished(solution)
        return self

    def _by_blocks(self, X: Any) -> Solution[Factors]:
        _checked(self.n_components, self.penalty, self.solver, self.max_iter)
        for name in {"n_features_in_", "feature_names_in_"} & vars(self).keys():
            delattr(self, name)
        rng = generator_from(self.random_state)

        def blocks() -> Iterator[sparse.csr_array]:
            for block in row_blocks(X):
                if block.shape[0]:
                    yield self._entries(block, new=not hasattr(self, "n_features_in_"))

        def start(rows: int) -> Dense:
            return begun(rows, self.n_components, rng)

        found = ridge_by_blocks(
            blocks,
            start,
            self.penalty,
            solver=self.solver,
            steps=STEPS,
            tolerance=self.tol,
            max_iter=self.max_iter,
        )
        return Solution(Factors(*found.value), found.converged, found.iterations, found.history, found.message)

    def _scores(self, x: sparse.csr_array) -> Dense:
        values = (x.data - self.mean_[x.indices]) / self.spread_
        pattern = Ragged(x.indptr, x.indices)
        found = batched_ridge(pattern, values, self.components_.T, self.penalty * pattern.counts)
        return found * self.spread_
