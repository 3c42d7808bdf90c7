"""An orthogonal dictionary from a stream, by Frank-Wolfe steps towards a large third norm of the codes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, of_dask, power_of_two, row_blocks
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.polar import polar
from eckart.linalg.solution import Solution
from eckart.scikit.base import Estimator, at_least_one, generator_from, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted


def ascent(y: Dense, atoms: Dense) -> Dense:
    """The gradient of the mean of |D^T y|_3^3 over rows of Y (n, p), by 3: Y^T (sign(C) C^2) / n, C = Y D, D (p, p)."""
    codes = y @ atoms
    found: Dense = y.T @ (np.sign(codes) * np.square(codes)) / len(y)
    return found


def frank_wolfe_step(y: Dense, atoms: Dense, gradient: Dense, t: int) -> tuple[Dense, Dense]:
    """D and the running gradient G after the t-th batch Y of white rows (Xue and Lau 2021), t from 1 on.

        G <- (1 - t^-1/2) G + t^-1/2 ascent(Y, D),   D <- D + t^-3/4 (polar(G) - D)

    polar(G) is where the linearised objective is largest over the ball of spectral norm 1, in which D stays.
    """
    rho, gamma = t**-0.5, t**-0.75
    gradient = (1 - rho) * gradient + rho * ascent(y, atoms)
    return atoms + gamma * (polar(gradient) - atoms), gradient


def matching_stretching_projection(
    y: Dense, *, tolerance: float = 1e-6, max_iter: int = 300, generator: int | np.random.Generator | None = None
) -> Solution[Dense]:
    """max of |Y D|_3^3 over orthogonal D, by the fixed point D <- polar(ascent(Y, D)) (Zhai et al. 2020, third norm).

    Args:
        y: Y (n, p), white: Y^T Y / n near the identity.
        tolerance: of the objective's relative increase in a step at which this ends.
        max_iter: steps at most.
        generator: of the start, orthogonal and uniform.

    Returns:
        D (p, p), atoms in columns; `history` has the mean of |D^T y|_3^3, which never falls.
    """
    atoms = polar(generator_from(generator).standard_normal((y.shape[1], y.shape[1])))
    history = [float((np.abs(y @ atoms) ** 3).sum() / len(y))]
    while len(history) <= max_iter:
        atoms = polar(ascent(y, atoms))
        history.append(float((np.abs(y @ atoms) ** 3).sum() / len(y)))
        if history[-1] - history[-2] <= tolerance * history[-1]:
            break
    converged = history[-1] - history[-2] <= tolerance * history[-1]
    message = f"the mean of |D^T y|_3^3 was {history[-1]:.6e} after {len(history) - 1} steps, {history[-2]:.6e} before"
    return Solution(atoms, converged, len(history) - 1, tuple(history[1:]), message)


def symmetric_roots(moment: Dense) -> tuple[Dense, Dense]:
    """M^-1/2 and M^1/2 of a positive semi-definite M (p, p); what lies outside its range is left out of both."""
    values, vectors = np.linalg.eigh(moment)
    kept = values > len(values) * np.finfo(float).eps * max(float(values[-1]), 0.0)
    roots = np.sqrt(np.where(kept, values, 1.0))
    return (vectors * np.where(kept, 1 / roots, 0)) @ vectors.T, (vectors * np.where(kept, roots, 0)) @ vectors.T


def largest_entries(codes: Dense, count: int) -> Dense:
    """Codes with all but the `count` largest magnitudes of each row set to 0."""
    if count >= codes.shape[1]:
        return codes
    order = np.argpartition(np.abs(codes), -count, axis=1)[:, -count:]
    found = np.zeros_like(codes)
    np.put_along_axis(found, order, np.take_along_axis(codes, order, axis=1), axis=1)
    return found


def _planted(rng: np.random.Generator) -> Planted:
    atoms = polar(rng.standard_normal((8, 8)))
    codes = rng.standard_normal((1500, 8)) * (rng.random((1500, 8)) < 0.2)
    return Planted(
        {"X": 3 * codes @ atoms}, lambda fitted: 1 - np.abs(atoms @ fitted.orthogonal_.T).max(axis=1).mean(), 0.02
    )


@estimator(
    "online-orthogonal-dictionary",
    paper="Xue and Lau 2021, arXiv 2103.01484; Zhai et al. 2020, arXiv 1906.02435",
    kind="transformer",
    gives="an orthogonal dictionary, codes of k terms",
    planted=_planted,
    expression="Chain(Dense, Sparse)",
)
class OrthogonalDictionary(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """An orthogonal dictionary in which rows have few large coefficients, from a table or from a stream.

    Rows are centred and, with `whiten`, multiplied by M^-1/2, M their covariance so far; D is orthogonal for what comes
    out. `partial_fit` is the paper's: one Frank-Wolfe step a batch, whitened by what came so far. `fit` takes the whole
    table at every step (`matching_stretching_projection`), which comes nearer in less time where the table is at hand.

    Args:
        n_nonzero: coefficients that `transform` keeps, the largest of each row; None for all.
        whiten: whether the rows are made white first, as the theory asks. Without it the first terms keep more of the
            energy, and what is planted need not be found.
        method: of `fit`; "batch", or "online" for one pass of `partial_fit` over batches.
        batch_size: rows of a batch of "online".
        tol: of the relative increase of the objective in a step of "batch".
        max_iter: steps of "batch" at most.
        random_state: of the start.

    Attributes:
        components_: atoms, (features, features): rows are `mean_` and codes times these; orthogonal without `whiten`.
        orthogonal_: D^T (features, features), orthogonal, of the white rows.
        mean_: of the rows so far.
        n_samples_seen_, n_batches_: how many rows, and batches of `partial_fit`.
        n_iter_, converged_, history_: of "batch": steps, whether `tol` was reached, and the objective, which never
            falls.
    """

    def __init__(
        self,
        n_nonzero: int | None = None,
        *,
        whiten: bool = True,
        method: Literal["batch", "online"] = "batch",
        batch_size: int = 256,
        tol: float = 1e-6,
        max_iter: int = 300,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_nonzero = n_nonzero
        self.whiten = whiten
        self.method = method
        self.batch_size = batch_size
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> OrthogonalDictionary:
        """Learns the dictionary from rows X (samples, features), of Dask too where `method` is "online"; itself."""
        if of_dask(X) and self.method == "online":
            for name in {"n_samples_seen_", "n_features_in_"} & vars(self).keys():
                delattr(self, name)
            for block in row_blocks(X):
                for batch in np.array_split(block, max(1, len(block) // self.batch_size)):
                    self.partial_fit(batch)
            return self
        table = self._table(X, fit=True)
        self._started(table)
        if self.method == "online":
            for batch in np.array_split(table, max(1, len(table) // self.batch_size)):
                self._stepped(batch)
            return self
        self._counted(table)
        solution = matching_stretching_projection(
            self._white(table), tolerance=self.tol, max_iter=self.max_iter, generator=generator_from(self.random_state)
        )
        self._atoms = solution.value
        self._described()
        self._finished(solution)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> OrthogonalDictionary:
        """Takes in a batch of rows X (samples, features), and makes one step; itself."""
        first = not hasattr(self, "n_samples_seen_")
        batch = self._table(X, fit=True) if first else self._table(X)
        if first:
            self._started(batch)
        self._stepped(batch)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Codes (samples, features) of rows, all but the `n_nonzero` largest of each 0."""
        codes = self._white(self._table(X)) @ self.orthogonal_.T * self.unit_
        return codes if self.n_nonzero is None else largest_entries(codes, self.n_nonzero)

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Rows (samples, features) from their codes."""
        return np.asarray(X, np.float64) @ self.components_ + self.mean_

    def _started(self, table: Dense) -> None:
        p = table.shape[1]
        if self.method not in ("batch", "online"):
            raise Refused(f"method={self.method!r} is neither batch nor online")
        if self.n_nonzero is not None:
            at_least_one(n_nonzero=self.n_nonzero)
        self.unit_ = power_of_two(table)
        self.n_samples_seen_ = self.n_batches_ = 0
        self.mean_, self._moment = np.zeros(p), np.zeros((p, p))
        self._atoms = polar(generator_from(self.random_state).standard_normal((p, p)))
        self._gradient = np.zeros((p, p))
        self._n_features_out = p

    def _stepped(self, batch: Dense) -> None:
        self.n_batches_ += 1
        self._counted(batch)
        self._atoms, self._gradient = frank_wolfe_step(self._white(batch), self._atoms, self._gradient, self.n_batches_)
        self._described()

    def _counted(self, batch: Dense) -> None:
        """Mean and covariance with a batch more (Chan, Golub and LeVeque 1979)."""
        seen, more = self.n_samples_seen_, len(batch)
        # By the unit first, whose division rounds nothing, or sums of large entries overflow.
        mean = (batch / self.unit_).mean(axis=0)
        apart, rest = mean - self.mean_ / self.unit_, batch / self.unit_ - mean
        self._moment = self._moment + rest.T @ rest + seen * more / (seen + more) * np.outer(apart, apart)
        self.mean_ = self.mean_ + more / (seen + more) * apart * self.unit_
        self.n_samples_seen_ = seen + more
        self._whitener = self._unwhitener = np.eye(len(mean))
        if self.whiten:
            self._whitener, self._unwhitener = symmetric_roots(self._moment / self.n_samples_seen_)

    def _white(self, table: Dense) -> Dense:
        found: Dense = (table / self.unit_ - self.mean_ / self.unit_) @ self._whitener
        return found

    def _described(self) -> None:
        self.orthogonal_ = np.ascontiguousarray(polar(self._atoms).T)
        self.components_ = self.orthogonal_ @ self._unwhitener

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
