"""Robust PCA: a matrix as one of low rank and one of few entries, by an inexact augmented Lagrangian."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Array, Dense, observed, power_of_two
from eckart.errors import Refused
from eckart.estimators._subspace import RobustSubspace
from eckart.estimators.contract import estimator
from eckart.linalg.solution import Solution
from eckart.linalg.thresholded_svd import ThinSVD, spectral_norm, thresholded_svd
from eckart.scikit.base import at_least_one, generator_from
from eckart.scikit.planted import Planted

GROWTH = 1.2
"""Of mu in each step. Lin, Chen and Ma take 1.5, which ends sooner, and above the minimum where outliers are many."""

CACHED = 2**14
"""Numbers of a block of rows: those of six matrices stay in a core's own memory."""


def principal_component_pursuit(
    m: Array,
    penalty: float | None = None,
    *,
    tolerance: float = 1e-7,
    max_iter: int = 200,
    generator: int | np.random.Generator | None = None,
) -> Solution[tuple[ThinSVD, Dense]]:
    """min |L|_* + lambda |S|_1 subject to L + S = M, over the observed entries of M.

    Lin, Chen and Ma 2010 (arXiv 1009.5055), algorithm 5: with Y the multiplier and D, soft the shrinkages of singular
    values and of entries,

        L = D_{1/mu}(M - S + Y/mu),   S = soft_{lambda/mu}(M - L + Y/mu),   Y += mu (M - L - S),   mu grows by a fifth.

    As mu grows, what comes out is near the minimum and not at it, whatever the tolerance, which is of the constraint.
    The singular vectors of one step start those of the next, so that a step costs some products with a thin block
    instead of a decomposition. A missing entry is one that S may fill at no cost.

    Args:
        m: (rows, columns), NaN where nothing was observed.
        penalty: lambda; None for 1 / sqrt(max(rows, columns)).
        tolerance: of |M - L - S| / |M|, in the Frobenius norm over what was observed.
        max_iter: steps at most.
        generator: a seed or generator, of random directions beside those of the step before.

    Returns:
        L by its singular vectors and S (rows, columns), 0 where nothing was observed; `history` has the residual that
        `tolerance` is about.

    Raises:
        Refused: no entry is observed, one is infinite, or the penalty is not positive.
    """
    at_least_one(max_iter=max_iter)
    rng = generator_from(generator)
    m, seen = observed(m)
    rows, columns = m.shape
    penalty = 1 / np.sqrt(max(rows, columns)) if penalty is None else float(penalty)
    if not penalty > 0:
        raise Refused(f"penalty={penalty}, and a positive one is needed")
    none = ThinSVD(np.zeros((rows, 0)), np.zeros(0), np.zeros((columns, 0)))
    unit = power_of_two(m)
    m = m / unit
    norm = float(np.linalg.norm(m))
    if norm == 0:
        return Solution((none, m), True, 0, (), "every entry that was observed is zero")
    spectral = spectral_norm(m, rng)
    mu, largest = 1.25 / spectral, 1.25e7 / spectral
    # The multiplier is kept by mu: Y / mu is what shrinking took off the entries, at most penalty / mu.
    taken = m / (mu * max(spectral, float(np.abs(m).max()) / penalty))
    rest, sparse, basis = m + taken, np.zeros_like(m), none.right
    missing = None if seen.all() else ~seen
    history: list[float] = []
    while len(history) < max_iter:
        found = thresholded_svd(rest, 1 / mu, basis, rng, tolerance=1e-4)
        kept = int((found.values > 1 / mu).sum())
        low = ThinSVD(found.left[:, :kept], found.values[:kept] - 1 / mu, found.right[:, :kept])
        basis = low.right
        grown = min(GROWTH * mu, largest)
        gap = _shrunk(m, low, missing, taken, sparse, rest, penalty / mu, mu / grown)
        mu = grown
        history.append(gap / norm)
        if history[-1] <= tolerance:
            break
    message = f"|M - L - S| is {history[-1]:.1e} of |M| after {len(history)} steps"
    value = ThinSVD(low.left, low.values * unit, low.right), np.where(seen, sparse * unit, 0.0)
    return Solution(value, history[-1] <= tolerance, len(history), tuple(history), message)


def _shrunk(
    m: Dense,
    low: ThinSVD,
    missing: Dense | None,
    taken: Dense,
    sparse: Dense,
    rest: Dense,
    threshold: float,
    shorter: float,
) -> float:
    """The step of S and of Y, by blocks of rows that stay near until all is done with them.

    Args:
        m: M (rows, columns).
        low: L.
        missing: where nothing was observed; None for nowhere.
        taken: Y / mu, of this step before and of the next one afterwards.
        sparse: is made S.
        rest: is made M - S + Y / mu of the next step.
        threshold: lambda / mu.
        shorter: mu by that of the next step.

    Returns:
        |M - L - S|.
    """
    left, right = low.left * low.values, np.ascontiguousarray(low.right.T)
    square, step = 0.0, max(1, CACHED // m.shape[1])
    for at in range(0, len(m), step):
        part = slice(at, at + step)
        gap, s, held = left[part] @ right, sparse[part], taken[part]
        np.subtract(m[part], gap, out=s)
        s += held
        np.clip(s, -threshold, threshold, out=gap)
        if missing is not None:
            gap[missing[part]] = 0.0
        s -= gap
        np.subtract(gap, held, out=held)
        flat = held.ravel()
        square += float(flat @ flat)
        np.multiply(gap, shorter, out=held)
        np.subtract(m[part], s, out=rest[part])
        rest[part] += held
    return float(np.sqrt(square))


def _planted(rng: np.random.Generator) -> Planted:
    low = rng.standard_normal((80, 2)) @ rng.standard_normal((2, 60))
    outliers = np.where(rng.random(low.shape) < 0.05, rng.uniform(-50, 50, low.shape), 0.0)
    missing = rng.random(low.shape) < 0.05
    return Planted(
        {"X": np.where(missing, np.nan, low + outliers)},
        lambda fitted: np.linalg.norm(fitted.low_rank_ - low) / np.linalg.norm(low),
        1e-5,
    )


@estimator(
    "rpca-ialm",
    paper="Candès et al. 2011, arXiv 0912.3599; Lin, Chen and Ma 2010, arXiv 1009.5055",
    kind="transformer",
    gives="low rank and sparse, robust scores of new rows",
    takes="NaN as missing",
    planted=_planted,
    expression="Sum(Chain(Dense, Dense), Sparse)",
)
class RobustPCA(RobustSubspace):
    """Robust PCA: a table as a matrix of low rank and one of few large entries, which may lie anywhere.

    Solves `principal_component_pursuit`; nothing is centred. New rows are put on the subspace that was found by least
    absolute deviations, so that outliers in them do not move their scores.

    Args:
        penalty: lambda, what an outlier of size 1 costs beside a singular value of 1; None for
            1 / sqrt(max(samples, features)).
        tol: of |X - L - S| / |X|.
        max_iter: steps at most.
        random_state: of random directions beside the subspace of the step before.

    Attributes:
        low_rank_: L, (samples, features); an estimate where X is NaN.
        sparse_: S, (samples, features); 0 where X is NaN.
        components_: orthonormal right singular vectors of L, (rank, features).
        singular_values_: of L, (rank,).
        n_iter_, converged_, history_: steps, whether `tol` was reached, and |X - L - S| / |X| step by step.
    """

    def __init__(
        self,
        penalty: float | None = None,
        *,
        tol: float = 1e-7,
        max_iter: int = 200,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.penalty = penalty
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> RobustPCA:
        """Splits X (samples, features), NaN where nothing was observed; itself."""
        table = self._table(X, fit=True, ensure_all_finite="allow-nan")
        solution = principal_component_pursuit(
            table,
            self.penalty,
            tolerance=self.tol,
            max_iter=self.max_iter,
            generator=generator_from(self.random_state),
        )
        self._split(solution)
        return self
