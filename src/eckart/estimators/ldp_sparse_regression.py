"""Sparse regression from rows that nobody else sees: each leaves its owner once, with noise that makes it private."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, number, of_dask
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.gaussian_mechanism import noise_ratio
from eckart.linalg.prox import soft
from eckart.linalg.simplex import quadratic_programs
from eckart.scikit.base import Estimator, generator_from, paired_blocks, positive, same_kind
from eckart.scikit.door import RegressorMixin
from eckart.scikit.planted import Planted

PAIR = 3 / np.sqrt(2)
"""How far (x x^T, x y) moves at most where |x|, |y| <= 1: 2 (1 - c^2) + 2 (1 + c) is largest at a cosine c of 1/2."""
PRODUCT = 2.0
"""How far x y moves at most."""


def clipped(x: Dense, bound: float) -> Dense:
    """Rows of x (n, d) by the bound, those that are longer on the unit sphere."""
    largest = np.abs(x).max(axis=1, keepdims=True, initial=0)
    largest = np.where(largest > 0, largest, 1.0)
    ways = x / largest
    norms = np.linalg.norm(ways, axis=1, keepdims=True)
    found: Dense = ways * np.minimum(largest / bound, 1 / np.where(norms > 0, norms, 1.0))
    return found


def packed(symmetric: Dense) -> Dense:
    """(..., d, d) -> (..., d (d + 1) / 2): the upper triangle, by sqrt(2) off the diagonal, so that norms stay."""
    d = symmetric.shape[-1]
    rows, columns = np.triu_indices(d)
    found: Dense = symmetric[..., rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2))
    return found


def unpacked(vector: Dense, d: int) -> Dense:
    """The inverse of `packed`, of one vector."""
    rows, columns = np.triu_indices(d)
    found = np.zeros((d, d))
    found[rows, columns] = vector / np.where(rows == columns, 1.0, np.sqrt(2))
    return found + np.triu(found, 1).T


def reports(
    x: Dense,
    y: Dense,
    x_bound: float,
    y_bound: float,
    epsilon: float,
    delta: float,
    *,
    generator: int | np.random.Generator | None = None,
) -> Dense:
    """What each owner of a row sends, (epsilon, delta)-private: x x^T and x y of the clipped row, and noise on both.

    Args:
        x: (n, d), a row an owner.
        y: (n,).
        x_bound: of |x|_2; longer rows are shortened. It has to be chosen without the data.
        y_bound: of |y|.
        epsilon: of the Gaussian mechanism.
        delta: of it.
        generator: of the noise.

    Returns:
        (n, d (d + 1) / 2 + d): `packed` x x^T / x_bound^2, and x y / (x_bound y_bound).
    """
    rows, targets = clipped(x, x_bound), np.clip(y / y_bound, -1, 1)
    told = np.concatenate([packed(rows[:, :, None] * rows[:, None, :]), rows * targets[:, None]], axis=1)
    found: Dense = told + PAIR * noise_ratio(epsilon, delta) * generator_from(generator).standard_normal(told.shape)
    return found


def psd_with_floor(moment: Dense, floor: float) -> Dense:
    """A symmetric matrix whose eigenvalues below the floor are at it."""
    values, vectors = np.linalg.eigh(moment)
    found: Dense = (vectors * np.maximum(values, floor)) @ vectors.T
    return found


def closed_form(moment: Dense, products: Dense, penalty: float) -> Dense:
    """soft(M^-1 b, penalty), M (d, d) positive definite: the paper's."""
    return soft(np.linalg.solve(moment, products), penalty)


def lasso(moment: Dense, products: Dense, penalty: float) -> Dense:
    """argmin over theta of theta M theta^T / 2 - b theta^T + penalty |theta|_1, M (d, d) positive semi-definite."""
    norm = float(np.linalg.norm(moment, 2)) or 1.0
    start = np.zeros((1, len(products)))
    found: Dense = quadratic_programs(
        moment, products[None], lambda z: soft(z, penalty / norm), start, tolerance=1e-10
    )[0]
    return found


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.standard_normal((5000, 4))
    theta = np.array([0.8, 0.0, -0.6, 0.0])
    y = x @ theta + 0.1 * rng.standard_normal(len(x))
    return Planted(
        {"X": x, "y": y},
        lambda fitted: np.linalg.norm(fitted.coef_ - theta),
        0.1,
        {"epsilon": 1000.0, "x_bound": 4.5, "y_bound": 4.0},
        {"scale": "targets are clipped at a bound that is given"},
    )


@estimator(
    "ldp-sparse-regression",
    paper="Zhu, Ding, Aggarwal, Xu and Wang 2023, arXiv 2310.07367",
    kind="regressor",
    gives="sparse coefficients, private in every row",
    takes="arrays of Dask",
    planted=_planted,
)
class LocallyPrivateLasso(RegressorMixin, Estimator):
    """Sparse linear regression in which every row is private even to whoever fits it.

    Each owner sends x x^T and x y once, clipped and with Gaussian noise (`reports`), which is (epsilon, delta)-private
    by the exact accounting of the analytic Gaussian mechanism; from their means M and b come the coefficients: by the
    paper's soft(M^-1 b), or by the lasso of M and b, whose noise is not multiplied by M^-1. `fit` draws the noise of
    the sum, of the same law as the sum of all reports.

    The bounds have to be known without the data, and so has any shift of it: nothing is centred, there is no intercept
    (append a constant feature), and no attribute says how much was clipped. Noise is of floating-point numbers, whose
    gaps can tell an attacker more than the theory of real numbers allows (Mironov 2012): for reports that leave a
    machine, draw it from a discrete law. The interactive protocol of the paper is not here.

    Args:
        epsilon: of each row; below some 10 expect coefficients of little use from less than millions of rows.
        delta: of each row.
        x_bound: of the Euclidean norm of a row; longer ones are shortened to it.
        y_bound: of the size of a target.
        penalty: by the standard deviation of the noise in the mean of x y; both by their bounds.
        method: "lasso", or the paper's "closed-form".
        random_state: of the noise.

    Attributes:
        coef_: (features,).
        noise_: standard deviation of the noise of a report, of x x^T / x_bound^2 and x y / (x_bound y_bound).
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        *,
        delta: float = 1e-6,
        x_bound: float = 1.0,
        y_bound: float = 1.0,
        penalty: float = 2.0,
        method: Literal["lasso", "closed-form"] = "lasso",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.x_bound = x_bound
        self.y_bound = y_bound
        self.penalty = penalty
        self.method = method
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, public: Any = None) -> LocallyPrivateLasso:
        """Fits rows X (samples, features) and targets y (samples,); itself.

        Args:
            X: a row an owner; an array of Dask is read once, block after block of its rows.
            y: what they have.
            public: (m, features), rows without targets that nobody minds telling: then only x y is told.
        """
        positive(x_bound=self.x_bound)
        positive(y_bound=self.y_bound)
        if not 0 <= number(self.penalty) < np.inf or self.method not in ("lasso", "closed-form"):
            raise Refused(
                f"penalty={self.penalty!r}, method={self.method!r}: a penalty is 0 or more, and methods are lasso and "
                "closed-form"
            )
        rng, (n, squares, products) = generator_from(self.random_state), self._summed(X, y)
        d = len(products)
        self.noise_ = (PAIR if public is None else PRODUCT) * noise_ratio(self.epsilon, self.delta)
        spread = self.noise_ / np.sqrt(n)
        products = products / n + spread * rng.standard_normal(d)
        if public is None:
            moment = squares / n + unpacked(spread * rng.standard_normal(d * (d + 1) // 2), d)
            # The spectral norm of that noise: what is below it says nothing.
            moment = psd_with_floor(moment, spread * np.sqrt(2 * d))
        else:
            shown = clipped(self._table(public), self.x_bound)
            moment = psd_with_floor(shown.T @ shown / len(shown), d * np.finfo(float).eps)
        found = (lasso if self.method == "lasso" else closed_form)(moment, products, self.penalty * spread)
        self.coef_ = found * (self.y_bound / self.x_bound)
        return self

    def _summed(self, X: Any, y: Any) -> tuple[int, Dense, Dense]:
        """How many rows there are, and the sums of x x^T and x y over them, clipped and by their bounds."""
        found: list[tuple[int, Dense, Dense]] = []
        for rows, targets in paired_blocks(X, y) if of_dask(X) else [(X, y)]:
            table, target = self._table(rows, fit=not found, y=targets, y_numeric=True)
            x, told = clipped(table, self.x_bound), np.clip(target / self.y_bound, -1, 1)
            found.append((len(x), x.T @ x, x.T @ told))
        if not found:
            raise Refused(f"{type(self).__name__}: X has no rows")
        counts, squares, products = zip(*found, strict=True)
        return sum(counts), sum(squares), sum(products)

    @same_kind
    def predict(self, X: Any) -> Any:
        """Targets (samples,) of rows."""
        return self._table(X) @ self.coef_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags
