"""Where to evaluate a function that is to be fitted in a basis: points that repel each other, with weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of, power_of_two, whole
from eckart.errors import Refused
from eckart.linalg.projection_dpp import orthonormal, projection_dpp
from eckart.scikit.base import Estimator, at_least_one, generator_from, opened, same_kind
from eckart.scikit.door import RegressorMixin
from eckart.scikit.planted import Planted
from eckart.sketching.contract import estimates, sketch


@dataclass(frozen=True)
class Design:
    """Points and weights.

    Attributes:
        index: (n,), of the candidates; one may come several times.
        weights: (n,), m over the Christoffel function K at the points, K having a mean of m over all candidates.
        features: (n, m), their rows.
    """

    index: Array
    weights: Array
    features: Array

    def fit(self, values: Array) -> Array:
        """c = argmin sum_i w_i (f(x_i) - phi(x_i) c)^2 of values f (n,) or (n, k) at the points."""
        root = np.sqrt(dense(self.weights, "the weights", ndim=1))
        y = dense(values, "the values", ndim=None)
        if len(y) != len(root):
            raise Refused(f"{len(root)} points have {len(root)} values, and {len(y)} came")
        weighted = root.reshape(-1, *[1] * (y.ndim - 1)) * y
        return back(np.linalg.lstsq(root[:, None] * dense(self.features), weighted, rcond=None)[0], values)


def _polynomials(generator: np.random.Generator) -> dict[str, Any]:
    """Legendre polynomials to degree 3 at 50 random points."""
    return {"features": np.polynomial.legendre.legvander(generator.uniform(-1, 1, 50), 3), "count": 8}


def _in_the_space(rng: np.random.Generator) -> Planted:
    """As many points as coefficients, and values of a function that has these."""
    phi, coefficients = _polynomials(rng)["features"], rng.standard_normal(4)

    def error(design: Design) -> float:
        return float(np.abs(design.fit(phi[design.index] @ coefficients) - coefficients).max())

    return Planted({"features": phi, "count": 4}, error, 1e-9)


@sketch(
    "dpp-least-squares",
    paper="Nouy and Michel 2023, arXiv 2312.14057",
    gives="a design: points, weights, and `fit`",
    error="E|f - fit|^2 at most a constant times that of the best fit, from about m log m points on; 2 m in practice",
    problem=_polynomials,
    limit=_in_the_space,
)
def dpp_design(
    features: Array,
    count: int,
    *,
    design: Literal["repeated-dpp", "volume", "iid"] = "repeated-dpp",
    generator: Seed = None,
) -> Design:
    """Chooses n of N candidates for weighted least squares in m features, by projection determinantal processes.

    "repeated-dpp": ceil(n/m) draws of m points that repel each other, of the last of which the first points are kept;
    "volume": one such draw, and the others independently in proportion to K, the leverage; "iid": all of them so.
    Weights are m/K(x) at every point.

    Args:
        features: phi (N, m) at the candidates, of full column rank.
        count: n, at least m.
        design: how points are drawn.
        generator: of the draws.
    """
    phi = dense(features, "the features")
    q = orthonormal(phi)
    m, rng = phi.shape[1], generator_of(generator)
    if count < m:
        raise Refused(f"count={count} points do not determine {m} coefficients")
    if design not in ("repeated-dpp", "volume", "iid"):
        raise Refused(f"unknown design {design!r}; there are repeated-dpp, volume and iid")
    leverage = np.square(q).sum(1)
    if design == "repeated-dpp":
        index = np.concatenate([projection_dpp(q, rng) for _ in range(-(-count // m))])[:count]
    else:
        first = projection_dpp(q, rng) if design == "volume" else np.empty(0, np.int64)
        others = rng.choice(len(q), count - len(first), p=leverage / leverage.sum())
        index = np.concatenate([first, others])
    weights = m / (len(q) * leverage[index])
    return Design(back(index, features), back(weights, features), back(phi[index], features))


def _few_values(rng: np.random.Generator) -> Planted:
    """A cubic at 80 points, of which eight values are read."""
    x, coefficients = np.polynomial.legendre.legvander(rng.uniform(-1, 1, 80), 3)[:, 1:], rng.standard_normal(3)
    y = x @ coefficients + 2.0
    return Planted({"X": x, "y": y}, lambda fitted: np.abs(fitted.coef_ - coefficients).max(), 1e-10)


@estimates("dpp-least-squares", kind="regressor", planted=_few_values)
class SampledLeastSquares(RegressorMixin, Estimator):
    """Least squares in few values of y, at rows that are chosen by X alone: `design_points` says which to measure.

    Rows are drawn and weighted as in `dpp_design`, in the space of the columns of X, with a constant one beside them
    unless `fit_intercept` is false. Values of y at other rows are not read, and may be NaN. Put what makes features,
    such as polynomials, before it in a pipeline.

    Args:
        n_samples: values that are read, at least as many as there are coefficients; None for twice as many. Where X has
            no more rows, each is read once.
        design: how rows are drawn; see `dpp_design`.
        fit_intercept: whether there is a constant.
        random_state: of the draws; a number, where `design_points` is asked before `fit`.

    Attributes:
        coef_: (features,); of dependent columns those of least norm, the largest entry of each being 1.
        intercept_: the constant.
        index_: the rows that were read; one may come several times.
        weights_: theirs in the fit.
    """

    def __init__(
        self,
        n_samples: int | None = None,
        *,
        design: Literal["repeated-dpp", "volume", "iid"] = "repeated-dpp",
        fit_intercept: bool = True,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_samples = n_samples
        self.design = design
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def design_points(self, X: Any) -> Dense:
        """The rows of X (samples, features) whose y is to be measured, ascending, each once.

        Raises:
            Refused: `random_state` is no number, so that `fit` would draw others.
        """
        if not whole(self.random_state):
            raise Refused(f"random_state={self.random_state!r:.40} draws other rows in fit: give it a number")
        x = self._table(X, fit=True)
        found: Dense = np.unique(self._drawn(self._features(x)[1][0])[0])
        return found

    def fit(self, X: Any, y: Any) -> SampledLeastSquares:
        """Chooses rows of X (samples, features), and fits their y; itself.

        Raises:
            Refused: y is NaN at a row that was drawn.
        """
        values = opened(y)
        if y is not None:
            try:
                values = np.asarray(values, np.float64 if np.asarray(values).dtype.kind in "OUSb" else None)
            except (TypeError, ValueError) as error:
                raise Refused(f"y holds what is no number: {error}") from error
        missing = np.isnan(values) if y is not None and values.dtype.kind == "f" else np.zeros(np.shape(values), bool)
        x, known = self._table(X, fit=True, y=np.where(missing, 0, values) if missing.any() else y, y_numeric=True)
        scale, (u, s, vh) = self._features(x)
        self.index_, self.weights_, found = self._fitted(u, np.asarray(known, np.float64), missing.ravel())
        coefficients = vh.T @ (found / s) / scale
        self.coef_ = coefficients[: x.shape[1]]
        self.intercept_ = float(coefficients[-1]) if self.fit_intercept else 0.0
        return self

    @same_kind
    def predict(self, X: Any) -> Any:
        """Values (samples,) of rows X (samples, features)."""
        return self._table(X) @ self.coef_ + self.intercept_

    def _features(self, x: Dense) -> tuple[Dense, tuple[Dense, Dense, Dense]]:
        """What columns were divided by, and the singular value decomposition of what is left, as far as it has rank."""
        if self.fit_intercept:
            x = np.hstack([x, np.ones((len(x), 1))])
        scale = np.abs(x).max(0)
        scale[scale == 0] = 1
        u, s, vh = np.linalg.svd(x / scale, full_matrices=False)
        rank = int((s > s.max(initial=0) * max(x.shape) * np.finfo(float).eps).sum())
        return scale, (u[:, :rank], s[:rank], vh[:rank])

    def _drawn(self, u: Dense) -> tuple[Dense, Dense]:
        """Rows and weights for a basis u (samples, rank)."""
        n, rank = u.shape
        count = 2 * rank if self.n_samples is None else self.n_samples
        if self.n_samples is not None:
            at_least_one(n_samples=self.n_samples)
        if count >= n or not rank:
            return np.arange(n), np.ones(n)
        drawn = dpp_design(u, count, design=self.design, generator=generator_from(self.random_state))
        return drawn.index, drawn.weights

    def _fitted(self, u: Dense, y: Dense, missing: Dense) -> tuple[Dense, Dense, Dense]:
        """Rows, weights, and coefficients in the basis u."""
        index, weights = self._drawn(u)
        if missing.any() and missing[index].any():
            row = int(index[missing[index].argmax()])
            raise Refused(f"y[{row}] is NaN, and is read: measure y at the rows of design_points(X)")
        root = np.sqrt(weights)
        unit = power_of_two(y[index])
        found = np.linalg.lstsq(root[:, None] * u[index], root * (y[index] / unit), rcond=None)[0]
        return index, weights, found * unit
