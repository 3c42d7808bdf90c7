"""A table without negative entries as a product of two thin ones without, missing entries left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import Dense, Seed, generator_of, number, observed, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.simplex import sweeps
from eckart.linalg.solution import Solution
from eckart.linalg.thresholded_svd import leading_svd
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted

SWEEPS, LESS = 3, 0.1
"""Of the coordinates for one product with the table, at most; and fewer where one moves by less than this of the first.

More would be free beside the product of a large table, and lose to extrapolation, which needs fresh products."""
PACE, FASTER, BOUND, SLOWER = 0.5, 1.05, 1.01, 1.5
"""Ang and Gillis's extrapolation: at first, its growth, that of its bound, and by what it is divided after a rise."""
RIDGE = 0.05
"""Where entries are missing, by the root mean square of those that are there."""
WINDOW = 10
"""Steps over which the fall of the objective is watched."""

Table = Any
"""Dense or compressed rows."""


def normal_equations(x: Table, seen: Dense | None, factor: Dense, ridge: float = 0.0) -> tuple[Dense, Dense]:
    """Gram matrices and right sides of the regressions of the rows of x (n, p) on a factor (k, p).

    Args:
        x: 0 where nothing was observed.
        seen: (n, p), 1 where something was; None where all is.
        factor: (k, p).
        ridge: for each entry that was observed of a row.

    Returns:
        Gram (k, k), common to all rows, or (k, k, n) where entries are missing; and (k, n).
    """
    linear = np.ascontiguousarray((x @ factor.T).T)
    k = len(factor)
    if seen is None:
        return factor @ factor.T + ridge * x.shape[1] * np.eye(k), linear
    above = np.triu_indices(k)
    gram = np.empty((k, k, x.shape[0]))
    gram[above] = (factor[above[0]] * factor[above[1]]) @ seen.T
    gram[above[1], above[0]] = gram[above]
    gram[np.arange(k), np.arange(k)] += ridge * seen.sum(axis=1)
    return gram, linear


def singular_start(x: Table, rank: int, rng: np.random.Generator) -> tuple[Dense, Dense]:
    """Factors (rank, n) and (rank, p) from the parts of one sign of singular pairs (Boutsidis and Gallopoulos 2008).

    Of u v^T the larger of u+ v+^T and u- v-^T, which is its best approximation without negative entries; beyond the
    rank of x, or where a part is zero, uniform noise of the size of the mean.
    """
    mean = float(x.sum()) / (x.shape[0] * x.shape[1])
    left, right = (np.sqrt(mean / rank) * rng.uniform(0.0, 2.0, (rank, size)) for size in x.shape)
    most = min(rank, *x.shape)
    found = leading_svd(x, most, rng)
    for c in range(most):
        u, v = found.left[:, c], found.right[:, c]
        parts = [(np.maximum(s * u, 0), np.maximum(s * v, 0)) for s in (1, -1)]
        sizes = [float(np.linalg.norm(one)) * float(np.linalg.norm(other)) for one, other in parts]
        (one, other), size = parts[int(np.argmax(sizes))], max(sizes)
        if found.values[c] * size > 1e-9 * found.values[0]:
            root = np.sqrt(found.values[c] * size)
            left[c], right[c] = root * one / np.linalg.norm(one), root * other / np.linalg.norm(other)
    return left, right


def nonnegative_factors(
    x: Any,
    rank: int,
    *,
    penalty: float | None = None,
    start: tuple[Dense, Dense] | None = None,
    tolerance: float = 1e-4,
    max_iter: int = 500,
    generator: Seed = None,
) -> Solution[tuple[Dense, Dense]]:
    """min over W, H >= 0 of |P(X - W H)|^2 / 2 + ridge sum_ij (|w_i|^2 + |h_j|^2) / 2, over what is observed, P(X).

    Hierarchical alternating least squares: each coordinate of W is set to its best, a few times for one product of X
    with H (Gillis and Glineur 2012), then those of H; and both go on from points beyond where they arrived,

        W_y = max(W + beta (W - W_before), 0),

    beta growing until the objective rises, which throws the step away (Ang and Gillis 2019, with their constants). With
    missing entries each row has its own Gram matrix; and a row of few, which without a ridge may be told anything
    (errors of 1e13 where nine tenths were missing), gets its ridge by their number.

    Args:
        x: X (n, p), not negative: dense, NaN where nothing was observed, or sparse, what is not stored being 0.
        rank: k.
        penalty: the ridge by the root mean square of what is observed; None for 0 where all is, and `RIDGE` else.
        start: W (n, k) and H (k, p); from singular vectors where it is None.
        tolerance: of the fall of the objective in ten steps, by itself.
        max_iter: steps at most.
        generator: a seed or generator, of noise in the start.

    Returns:
        W (n, k) and H (k, p); `history` has the objective by that of zero.

    Raises:
        Refused: X has negative or infinite entries, or nothing is observed.
    """
    at_least_one(rank=rank, max_iter=max_iter)
    positive(tolerance=tolerance)
    rng = generator_of(generator)
    x, seen = _observed(x)
    unit, ridge = scale_and_ridge(x, seen, penalty)
    x = x / unit
    across, held = x.T.tocsr() if sparse.issparse(x) else np.ascontiguousarray(x.T), None if seen is None else seen.T
    if start is None:
        means = 0.0 if seen is None else x.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        w, h = singular_start(x if seen is None else np.where(seen > 0, x, means), rank, rng)
    else:
        w, h = np.array(start[0].T / unit, order="C"), np.array(start[1], order="C")
    whole = float((x.data @ x.data if sparse.issparse(x) else np.vdot(x, x)) / 2)
    counts = np.full(x.shape[0], x.shape[1]) if seen is None else seen.sum(axis=1)
    ahead, far = w, h
    best, history, pace, bound = (w, h), [np.inf], PACE, 1.0
    done = whole == 0  # and the start is.
    while not done and len(history) <= max_iter:
        new = sweeps(*normal_equations(x, seen, far, ridge), ahead, SWEEPS, LESS)
        beyond = np.maximum(new + pace * (new - w), 0.0)
        gram, linear = normal_equations(across, held, beyond, ridge)
        h_new = sweeps(gram, linear, far, SWEEPS, LESS)
        square = ((h_new @ h_new.T) * gram).sum() if gram.ndim == 2 else np.einsum("kn,kln,ln->", h_new, gram, h_new)
        square += ridge * float(np.square(beyond).sum(axis=0) @ counts)
        value = max(1 + float(square / 2 - np.vdot(linear, h_new)) / whole, 0.0)
        if value > history[-1]:
            if pace < 1e-3:  # Nothing is left but rounding.
                break
            ahead, far, bound, pace = w, h, pace, pace / SLOWER
            history.append(history[-1])
            continue
        ahead, far = beyond, np.maximum(h_new + pace * (h_new - h), 0.0)
        w, h, best = new, h_new, (beyond, h_new)
        pace, bound = min(bound, FASTER * pace), min(1.0, BOUND * bound)
        history.append(value)
        done = value < 1e-14 or (len(history) > WINDOW and history[-1 - WINDOW] - value <= tolerance * value)
    converged = done or len(history) <= max_iter
    message = f"|X - W H|^2 was {history[-1]:.3e} of |X|^2 after {len(history) - 1} steps, and falls slowly still"
    factors = best[0].T * unit, best[1]
    return Solution(factors, converged, len(history) - 1, tuple(history[1:]), message)


def scale_and_ridge(x: Table, seen: Dense | None, penalty: float | None) -> tuple[float, float]:
    """A power of two to divide X by, and the ridge of X divided by it."""
    data = x.data if sparse.issparse(x) else x
    unit = power_of_two(data)
    share = (0.0 if seen is None else RIDGE) if penalty is None else number(penalty)
    if not 0 <= share < np.inf:
        raise Refused(f"penalty={penalty!r:.80}, and a number from 0 on is needed")
    count = x.shape[0] * x.shape[1] if seen is None else seen.sum()
    return unit, share * float(np.sqrt(np.square(data / unit).sum() / max(count, 1)))


def _observed(x: Any) -> tuple[Table, Dense | None]:
    """X, 0 where nothing is observed, and where something is: None where all is."""
    if sparse.issparse(x):
        table, seen = sparse.csr_array(x, dtype=np.float64), None
        data = table.data
        if not np.isfinite(data).all():
            raise Refused(f"X stores {int((~np.isfinite(data)).sum())} NaN or Inf: entries are missing in dense X only")
    else:
        table, known = observed(x, "X")
        data, seen = table, None if known.all() else known.astype(np.float64)
    if (data < 0).any():
        raise Refused(
            f"Negative values in data passed to NMF: {int((data < 0).sum())} entries of X are below 0, and sums of "
            "parts have none"
        )
    return table, seen


def _planted(rng: np.random.Generator) -> Planted:
    low = rng.gamma(0.5, size=(60, 3)) @ rng.gamma(0.5, size=(3, 40))
    x = np.where(rng.random(low.shape) < 0.2, np.nan, low)
    return Planted(
        {"X": x},
        lambda fitted: np.linalg.norm(fitted.inverse_transform(fitted.transform(x)) - low) / np.linalg.norm(low),
        1e-5,
        {"n_components": 3, "penalty": 0.0},
    )


@estimator(
    "nmf",
    paper="Gillis and Glineur 2012, arXiv 1107.5194; Ang and Gillis 2019, arXiv 1805.06604",
    kind="transformer",
    gives="parts without negative entries, and how much of each a row has",
    takes="NaN as missing; sparse, where what is not stored is 0",
    planted=_planted,
    expression="Chain(Dense, Dense)",
)
class NonnegativeFactorization(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """A table without negative entries as sums of a few parts without, where entries may be missing.

    Finds `nonnegative_factors`: what `sklearn.decomposition.NMF` finds with its squared loss and no penalty, in fewer
    steps, and from tables with NaN, which that refuses. Memory for a table with NaN is k^2 numbers a row beside it.

    Args:
        n_components: k, parts.
        penalty: a ridge by the root mean square of the entries; None for 0 where all are there, and 0.05 else.
        tol: of the fall of the objective in ten steps, by itself.
        max_iter: steps at most.
        random_state: of noise in the start, where parts outnumber the table's rank.

    Attributes:
        components_: parts, (n_components, features); 0 in a feature of which nothing is observed.
        unit_, ridge_: a power of two by which X is divided, and the ridge for each entry of that.
        n_iter_, converged_, history_: steps, whether `tol` was reached, and the objective by that of zero.
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        penalty: float | None = None,
        tol: float = 1e-4,
        max_iter: int = 500,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.penalty = penalty
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> NonnegativeFactorization:
        """Finds parts of X (samples, features); itself."""
        table = self._entries(X, fit=True)
        at_least_one(n_components=self.n_components)
        solution = nonnegative_factors(
            table,
            self.n_components,
            penalty=self.penalty,
            tolerance=self.tol,
            max_iter=self.max_iter,
            generator=generator_from(self.random_state),
        )
        h = solution.value[1]
        if not sparse.issparse(table):
            h[:, np.isnan(table).all(axis=0)] = 0.0
        self.components_ = h
        self.unit_, self.ridge_ = scale_and_ridge(*_observed(table), self.penalty)
        self._n_features_out = self.n_components
        self._finished(solution)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """How much of each part rows have, (samples, n_components): least squares on what is observed, none negative.

        0 in a row of which nothing is.
        """
        table = self._entries(X)
        if not sparse.issparse(table) and np.isnan(table).all():
            return np.zeros((len(table), self.n_components))
        x, seen = _observed(table)
        gram, linear = normal_equations(x / self.unit_, seen, self.components_, self.ridge_)
        return sweeps(gram, linear, np.zeros_like(linear), 10_000, 1e-8).T * self.unit_

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Whole rows (samples, features), from how much of each part they have."""
        return np.asarray(X, np.float64) @ self.components_

    def _entries(self, X: Any, *, fit: bool = False) -> Table:
        return self._table(X, fit=fit, accept_sparse=["csr", "csc"], ensure_all_finite="allow-nan")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
