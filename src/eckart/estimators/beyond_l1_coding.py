"""Sparse coding with penalties beyond l1: a dictionary, codes by iterated thresholding, a refit of what they keep."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, number, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg import prox
from eckart.linalg.solution import Solution
from eckart.scikit.base import Estimator, at_least_one, generator_from, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted

Threshold = Literal["soft", "half", "hard", "cel0"]

CHUNK = 2**22
"""Numbers of the Gram matrices that are solved at once."""


def penalty_of(kind: Threshold, threshold: float) -> float:
    """The lambda at which a code of one atom of norm 1 is 0 up to |y| = threshold, for each of the penalties."""
    found: float = {"soft": threshold, "half": (threshold / 1.5) ** 1.5}.get(kind, threshold**2 / 2)
    return found


def _shrunk(kind: Threshold, x: Dense, penalty: float, step: float) -> Dense:
    if kind == "cel0":
        return prox.cel0(x, step, penalty)
    return {"soft": prox.soft, "half": prox.half, "hard": prox.hard}[kind](x, step * penalty)


def _cost(kind: Threshold, x: Dense, penalty: float) -> float:
    size = np.abs(x)
    if kind == "soft":
        return penalty * float(size.sum())
    if kind == "half":
        return penalty * float(np.sqrt(size).sum())
    if kind == "hard":
        return penalty * float(np.count_nonzero(x))
    edge = np.sqrt(2 * penalty)
    return float((penalty - np.square(np.clip(edge - size, 0, None)) / 2)[x != 0].sum())


def thresholded_codes(
    y: Dense,
    atoms: Dense,
    penalty: float,
    kind: Threshold = "cel0",
    *,
    start: Dense | None = None,
    tolerance: float = 1e-5,
    max_iter: int = 200,
) -> Dense:
    """Codes X of min |y - x D|^2 / 2 + lambda phi(x), row by row: x <- prox(x - (x D - y) D^T / L), L = |D|_2^2.

    A step never raises the objective, whichever the penalty; where phi is not convex it ends in a critical point near
    the start.

    Args:
        y: Y (n, p).
        atoms: D (k, p), rows of norm 1.
        penalty: lambda, at least 0.
        kind: soft, |x|_1; half, sum of |x|^(1/2); hard, |x|_0; cel0, the continuous exact relaxation of |x|_0.
        start: (n, k); zeros where it is left out.
        tolerance: of the largest change in a row by its largest entry, at which the row is done.
        max_iter: steps at most.

    Returns:
        (n, k).
    """
    gram, target = atoms @ atoms.T, y @ atoms.T
    lipschitz = float(np.linalg.norm(gram, 2)) * (1 + 1e-9)
    codes = np.zeros_like(target) if start is None else start.copy()
    going = np.arange(len(y))
    if lipschitz == 0:
        return codes
    for _ in range(max_iter):
        held = codes[going]
        moved = _shrunk(kind, held - (held @ gram - target[going]) / lipschitz, penalty, 1 / lipschitz)
        codes[going] = moved
        change = np.abs(moved - held).max(axis=1, initial=0)
        going = going[change > tolerance * np.abs(moved).max(axis=1, initial=0)]
        if not len(going):
            break
    return codes


def refitted(codes: Dense, y: Dense, atoms: Dense) -> Dense:
    """The codes (n, k) of least |y - x D| in each row among those that are 0 where `codes` are: their bias is gone."""
    gram, target = atoms @ atoms.T, y @ atoms.T
    found = np.zeros_like(codes)
    counts = np.count_nonzero(codes, axis=1)
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        for part in np.array_split(rows, 1 + len(rows) * int(count) ** 2 // CHUNK):
            support = np.nonzero(codes[part])[1].reshape(len(part), count)
            inverse = np.linalg.pinv(gram[support[:, :, None], support[:, None, :]], hermitian=True)
            wanted = np.take_along_axis(target[part], support, axis=1)
            np.put_along_axis(found[part], support, 0.0, axis=1)
            found[part[:, None], support] = (inverse @ wanted[:, :, None])[:, :, 0]
    return found


def improved_atoms(atoms: Dense, codes: Dense, y: Dense, rng: np.random.Generator) -> Dense:
    """Atoms on the sphere, each the best for |Y - X D|^2 given the others, one sweep; unused ones become a row of Y.

    On the sphere the best d_j is the direction of x_j^T (Y - sum over i != j of x_i d_i).
    """
    atoms = atoms.copy()
    moments, target = codes.T @ codes, codes.T @ y
    for j in range(len(atoms)):
        if moments[j, j] > 0:
            wanted = target[j] - moments[j] @ atoms + moments[j, j] * atoms[j]
        else:
            wanted = y[rng.integers(len(y))]
        norm = float(np.linalg.norm(wanted))
        if norm > 0:
            atoms[j] = wanted / norm
    return atoms


def learned_dictionary(
    y: Dense,
    size: int,
    penalty: float,
    kind: Threshold = "cel0",
    *,
    steps: int = 10,
    tolerance: float = 1e-3,
    max_iter: int = 100,
    generator: int | np.random.Generator | None = None,
) -> Solution[tuple[Dense, Dense]]:
    """min |Y - X D|^2 / 2 + lambda phi(X) over codes X and a dictionary D with rows of norm 1, by turns.

    Args:
        y: Y (n, p).
        size: k, rows of D; rows of Y that are drawn are its start.
        penalty: lambda.
        kind: of phi, see `thresholded_codes`.
        steps: of codes for one sweep over the atoms.
        tolerance: of the objective's relative decrease in a round at which this ends.
        max_iter: rounds at most.
        generator: of the start.

    Returns:
        D (k, p) and X (n, k); `history` has the objective, which never rises.
    """
    rng = generator_from(generator)
    noise = rng.standard_normal((size, y.shape[1]))
    atoms = y[rng.permutation(np.resize(rng.permutation(len(y)), size))]
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    atoms = np.where(norms > 0, atoms / np.where(norms > 0, norms, 1), 0.0) + 0.1 * noise / np.sqrt(y.shape[1])
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((len(y), size))
    history = [0.5 * float(np.square(y).sum())]
    while len(history) <= max_iter:
        if len(history) > 1:
            atoms = improved_atoms(atoms, codes, y, rng)
        codes = thresholded_codes(y, atoms, penalty, kind, start=codes, max_iter=steps)
        rest = 0.5 * float(np.square(y - codes @ atoms).sum())
        history.append(rest + _cost(kind, codes, penalty))
        if history[-2] - history[-1] <= tolerance * history[-2]:
            break
    converged = history[-2] - history[-1] <= tolerance * history[-2]
    message = f"the objective was {history[-1]:.3e} after {len(history) - 1} rounds, {history[-2]:.3e} one before"
    return Solution((atoms, codes), converged, len(history) - 1, tuple(history[1:]), message)


def _planted(rng: np.random.Generator) -> Planted:
    atoms = rng.standard_normal((6, 8))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((150, 6))
    codes[np.arange(150), rng.integers(0, 6, 150)] = rng.choice([-1, 1], 150) * rng.uniform(1, 2, 150)
    return Planted(
        {"X": codes @ atoms},
        lambda fitted: 1 - np.abs(atoms @ fitted.components_.T).max(axis=1).mean(),
        0.06,
        {"n_components": 9, "threshold": 0.8},
        {"order of rows": "atoms begin as rows that are drawn"},
    )


@estimator(
    "beyond-l1-coding",
    paper="Rentzeperis, Calatroni, Perrinet and Prandi 2023, arXiv 2301.10002",
    kind="transformer",
    gives="a dictionary, sparse codes of new rows",
    planted=_planted,
    expression="Chain(Dense, Sparse)",
)
class ThresholdDictionary(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Sparse coding with a penalty nearer to counting than l1: soft, half, hard or CEL0 thresholds.

    Codes come from `thresholded_codes`, atoms one after the other from the least squares they solve exactly. What a
    threshold leaves of a code it shrinks (soft and half) or not (hard and CEL0, where it is large): compare penalties
    with `refit`, which takes the shrinking away.

    Args:
        n_components: atoms; None for as many as features.
        penalty: soft, half, hard or cel0.
        threshold: the size up to which a code of an atom alone is 0, by the root mean square of the entries of what is
            fitted; of one meaning for all penalties.
        refit: whether `transform` gives least squares on the support.
        tol: of the objective's relative decrease in a round.
        max_iter: rounds of codes and atoms at most.
        transform_max_iter: steps of `transform` at most.
        random_state: of the rows that the atoms start from.

    Attributes:
        components_: atoms of norm 1, (n_components, features).
        threshold_: in the units of the data.
        unit_: a power of two by which all is divided, so that squares stay finite.
        n_iter_, converged_, history_: rounds, whether `tol` was reached, and the objective, which never rises.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        penalty: Threshold = "cel0",
        threshold: float = 1.0,
        refit: bool = False,
        tol: float = 1e-3,
        max_iter: int = 100,
        transform_max_iter: int = 200,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.penalty = penalty
        self.threshold = threshold
        self.refit = refit
        self.tol = tol
        self.max_iter = max_iter
        self.transform_max_iter = transform_max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ThresholdDictionary:
        """Learns the atoms from rows X (samples, features); itself."""
        table = self._table(X, fit=True)
        size = table.shape[1] if self.n_components is None else self.n_components
        at_least_one(n_components=size)
        if not 0 <= number(self.threshold) < np.inf or self.penalty not in ("soft", "half", "hard", "cel0"):
            raise Refused(
                f"threshold={self.threshold!r} and penalty={self.penalty!r}: a threshold of 0 or more, and soft, half, "
                "hard or cel0"
            )
        self.unit_ = power_of_two(table)
        table = table / self.unit_
        self.threshold_ = self.threshold * float(np.sqrt(np.square(table).mean())) * self.unit_
        solution = learned_dictionary(
            table,
            size,
            penalty_of(self.penalty, self.threshold_ / self.unit_),
            self.penalty,
            tolerance=self.tol,
            max_iter=self.max_iter,
            generator=generator_from(self.random_state),
        )
        self.components_ = solution.value[0]
        self._n_features_out = size
        self._finished(solution)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Sparse codes (samples, n_components) of rows."""
        rows = self._table(X) / self.unit_
        penalty = penalty_of(self.penalty, self.threshold_ / self.unit_)
        codes = thresholded_codes(rows, self.components_, penalty, self.penalty, max_iter=self.transform_max_iter)
        return self.unit_ * (refitted(codes, rows, self.components_) if self.refit else codes)

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Rows (samples, features) from their codes."""
        return np.asarray(X, np.float64) @ self.components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
