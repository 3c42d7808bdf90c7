"""GoDec: a matrix as one of given rank, one of a given number of entries, and noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Array, Dense, observed, power_of_two
from eckart.errors import Refused
from eckart.estimators._subspace import RobustSubspace
from eckart.estimators.contract import estimator
from eckart.linalg.solution import Solution
from eckart.linalg.thresholded_svd import ThinSVD, thresholded_svd
from eckart.scikit.base import at_least_one, generator_from
from eckart.scikit.planted import Planted


def go_decomposition(
    x: Array,
    rank: int,
    share: float,
    *,
    tolerance: float = 1e-6,
    max_iter: int = 300,
    generator: int | np.random.Generator | None = None,
) -> Solution[tuple[ThinSVD, Dense]]:
    """min |X - L - S|^2 over L of rank at most r and S of at most a share of the entries, by turns.

    Zhou and Tao 2011 (ICML): L <- the best of rank r to X - S, S <- the largest entries of X - L. Each step is a best
    one, so the error falls; where it ends depends on the start, S = 0: outliers ten times as large as the rest, which
    the first L is made of, are not always found, and a share of twice what there is blurs L (`rpca-ialm` and `rsvddpd`
    know neither). They draw L's subspace anew in each step, from bilateral random projections; here it goes on from the
    step before, to the same L in fewer products. A missing entry is one that S fills at no cost.

    Args:
        x: (rows, columns), NaN where nothing was observed.
        rank: r, 1 to min(rows, columns).
        share: of the observed entries that S may have, 0 to 1.
        tolerance: of the fall of the error in a step, by |X|.
        max_iter: steps at most.
        generator: a seed or generator, of random directions beside those of the step before.

    Returns:
        L by its singular vectors and S (rows, columns), 0 where nothing was observed; `history` has
        |X - L - S| / |X| over what was observed.

    Raises:
        Refused: nothing is observed, an entry is infinite, or an argument is out of its range.
    """
    at_least_one(max_iter=max_iter)
    rng = generator_from(generator)
    x, seen = observed(x)
    if not 1 <= rank <= min(x.shape):
        raise Refused(f"rank={rank} is not in 1..{min(x.shape)}")
    if not 0 <= share < 1:
        raise Refused(f"share={share} is not in 0..1")
    unit = power_of_two(x)
    x = x / unit
    norm, kept = float(np.linalg.norm(x)), int(share * seen.sum())
    low = ThinSVD(np.zeros((len(x), rank)), np.zeros(rank), np.zeros((x.shape[1], 0)))
    filled, history, fall = x, [1.0], np.inf
    while norm and len(history) <= max_iter and fall > tolerance:
        found = thresholded_svd(filled, 0.0, low.right, rng, tolerance=tolerance, most=rank)
        low = ThinSVD(found.left[:, :rank], found.values[:rank], found.right[:, :rank])
        fit = low.dense()
        rest = np.where(seen, x - fit, 0.0)
        size = np.abs(rest)
        threshold = np.partition(size, size.size - kept, axis=None)[size.size - kept] if kept else np.inf
        sparse = np.where((size >= threshold) & (size > 0), rest, 0.0)
        filled = np.where(seen, x - sparse, fit)
        history.append(float(np.linalg.norm(rest - sparse)) / norm)
        fall = history[-2] - history[-1]
    if not norm:
        none = np.zeros(rank)
        low, sparse, fall = ThinSVD(np.eye(len(x), rank), none, np.eye(x.shape[1], rank)), np.zeros_like(x), 0.0
    message = f"|X - L - S| fell by {fall:.1e} of |X| in the last of {len(history) - 1} steps"
    value = ThinSVD(low.left, low.values * unit, low.right), sparse * unit
    return Solution(value, fall <= tolerance, len(history) - 1, tuple(history), message)


def _planted(rng: np.random.Generator) -> Planted:
    low = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    outliers = np.where(rng.permutation(low.size).reshape(low.shape) < 60, rng.uniform(3, 6, low.shape), 0.0)
    return Planted(
        {"X": low + outliers},
        lambda fitted: np.linalg.norm(fitted.low_rank_ - low) / np.linalg.norm(low),
        1e-3,
        {"n_components": 2, "share": 0.05},
    )


@estimator(
    "godec",
    paper="Zhou and Tao 2011, ICML",
    kind="transformer",
    gives="low rank and sparse, robust scores of new rows",
    takes="NaN as missing",
    planted=_planted,
    expression="Sum(Chain(Dense, Dense), Sparse)",
)
class GoDec(RobustSubspace):
    """GoDec: a table as a matrix of given rank, one of a given number of entries, and noise.

    Finds `go_decomposition`; nothing is centred. New rows are put on the subspace by least absolute deviations.

    Args:
        n_components: the rank.
        share: of the entries, which may be outliers.
        tol: of the fall of the error in a step, by |X|.
        max_iter: steps at most.
        random_state: of random directions beside the subspace of the step before.

    Attributes:
        low_rank_: L, (samples, features); an estimate where X is NaN.
        sparse_: S, (samples, features); 0 where X is NaN.
        components_: orthonormal right singular vectors of L, (n_components, features).
        singular_values_: of L, (n_components,).
        n_iter_, converged_, history_: steps, whether `tol` was reached, and |X - L - S| / |X| step by step.
    """

    def __init__(
        self,
        n_components: int = 1,
        share: float = 0.05,
        *,
        tol: float = 1e-6,
        max_iter: int = 300,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.share = share
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> GoDec:
        """Splits X (samples, features), NaN where nothing was observed; itself."""
        solution = go_decomposition(
            self._table(X, fit=True, ensure_all_finite="allow-nan"),
            self.n_components,
            self.share,
            tolerance=self.tol,
            max_iter=self.max_iter,
            generator=generator_from(self.random_state),
        )
        self._split(solution)
        return self
