"""Networks whose hidden layer is drawn and not trained: their scale by validation, and what a bound on it costs."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, dense, generator_of, power_of_two
from eckart.errors import Refused
from eckart.kernels.contract import kernel_method
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import RegressorMixin
from eckart.scikit.planted import Planted

Activation = Literal["tanh", "relu", "cos"]
SCALES = tuple(2.0 ** np.arange(-2, 7))
"""R that are tried, for points in [-1, 1]^d."""
RIDGES = np.logspace(-20, 2, 34)
"""By the largest squared singular value."""
ROUNDING = 1e-5
"""Share of the target's deviation that |c| may round to before it is said."""


def hidden(x: Dense, weights: Dense, offsets: Dense, activation: Activation = "tanh") -> Dense:
    """s(a_j . x - b_j), (n, units).

    Args:
        x: (n, d).
        weights: a (units, d).
        offsets: b (units,).
        activation: s: tanh, relu or cos.
    """
    before = x @ weights.T - offsets
    if activation not in ("tanh", "relu", "cos"):
        raise Refused(f"activation={activation!r} is none of tanh, relu and cos")
    if activation == "relu":
        return np.asarray(np.maximum(before, 0.0))
    return np.asarray(np.tanh(before) if activation == "tanh" else np.cos(before))


def validated(h: Dense, y: Dense, ridges: Dense) -> tuple[float, Dense, float, float]:
    """The ridge of the least generalised cross-validation n |r|^2 / (n - df)^2, from one SVD.

    Args:
        h: features (n, units), centred.
        y: targets (n,), centred.
        ridges: by the largest squared singular value; zero for least squares up to rounding.

    Returns:
        the criterion, coefficients (units,), the degrees of freedom with the mean's, and the ridge.
    """
    n = len(h)
    u, s, vt = np.linalg.svd(h, full_matrices=False)
    largest = s.max(initial=0)
    s = np.where(s > max(h.shape) * np.finfo(float).eps * largest, s, 0.0)
    z = u.T @ y
    outside = float(np.square(y - u @ z).sum())
    best: tuple[float, Dense, float, float] = (np.inf, np.zeros(h.shape[1]), 1.0, 0.0)
    for ridge in ridges:
        # s / (s^2 + ridge) by the largest of them, which no power overflows.
        t = s / largest if largest else s
        bottom = np.square(t) + ridge
        share = np.where(bottom > 0, np.square(t) / np.where(bottom > 0, bottom, 1.0), 0.0)
        free = n - 1 - float(share.sum())
        rest = outside + float(np.square((1 - share) * z).sum())
        criterion = n * rest / free**2 if free > 1e-6 * n else np.inf
        if criterion < best[0] or len(ridges) == 1:
            gain = np.where(bottom > 0, t / np.where(bottom > 0, bottom, 1.0), 0.0) / (largest or 1.0)
            best = criterion, vt.T @ (gain * z), n - free, float(ridge)
    return best


def bandlimit_error(
    x: Any,
    y: Any,
    scale: float,
    norms: Any,
    *,
    activation: Activation = "tanh",
    n_units: int = 2000,
    generator: int | np.random.Generator | None = None,
) -> Dense:
    """The least error of a network with weights in [-scale, scale], by the norm that its coefficients may have.

    f = mean_j c_j s(a_j . x - b_j) over very many units, drawn uniformly from the box; the least rms error under
    mean_j c_j^2 <= M^2 is a least squares problem with one multiplier. The error falls without end as M grows: the
    bounds of the paper (Li et al. 2020, theorem 1) are of the whole space, and on a compact set no box is too small
    (Hornik 1993). What a small box costs is |c|, and with it the digits of float64.

    Args:
        x: points (n, d), each within [-1, 1].
        y: the target there (n,).
        scale: R.
        norms: M, one or many.
        activation: s.
        n_units: how many stand for all of them.
        generator: or a seed.

    Returns:
        rms errors, of the shape of the norms.

    Raises:
        Refused: shapes that do not fit, or a scale or norm that is not positive.
    """
    points, target, limits = dense(x, "x"), dense(y, "y", ndim=1), np.asarray(norms, np.float64)
    at_least_one(n_units=n_units)
    if len(points) != len(target) or not 0 < scale < np.inf or not (limits > 0).all():
        raise Refused(f"x {points.shape}, y {target.shape}, scale={scale}, norms={norms}: n points, all positive")
    rng = generator_of(generator)
    drawn = scale * rng.uniform(-1, 1, (n_units, points.shape[1] + 1))
    h = hidden(points, drawn[:, :-1], drawn[:, -1], activation) / np.sqrt(n_units)
    u, s, _ = np.linalg.svd(h, full_matrices=False)
    kept = s > max(h.shape) * np.finfo(float).eps * s.max(initial=0)
    u, s = u[:, kept], s[kept]
    z = u.T @ target
    outside = float(np.square(target - u @ z).sum())
    found = []
    for limit in limits.reshape(-1):
        low, high = -80.0, 2 * np.log(s.max(initial=1.0)) + 80.0
        for _ in range(200):  # |c| falls as the multiplier grows
            middle = (low + high) / 2
            size = np.linalg.norm(s / (np.square(s) + np.exp(middle)) * z)
            low, high = (middle, high) if size > limit else (low, middle)
        left = np.exp(high) / (np.square(s) + np.exp(high)) * z
        found.append(np.sqrt((outside + float(np.square(left).sum())) / len(target)))
    return np.array(found).reshape(limits.shape)


def _planted(rng: np.random.Generator) -> Planted:
    x, new = rng.uniform(-3, 5, (150, 2)), rng.uniform(-2.5, 4.5, (200, 2))

    def f(t: Dense) -> Dense:
        return np.asarray(np.sin(1.5 * t[:, 0]) + 0.2 * t[:, 1])

    return Planted({"X": x, "y": f(x)}, lambda fitted: np.sqrt(np.square(fitted.predict(new) - f(new)).mean()), 0.05)


@kernel_method(
    "bandlimited-random-net",
    paper="Li, Sonoda, Cao, Wang and Liang 2020, arXiv 2008.08427",
    kind="regressor",
    gives="a network with drawn weights",
    planted=_planted,
    expression="sum_j c_j s(R (a_j . x - b_j))",
)
class RandomNet(RegressorMixin, Estimator):
    """A network of one hidden layer whose weights are drawn from a box and kept, the box as large as the data ask for.

    f(x) = sum_j c_j s(a_j . x - b_j) + mean, (a, b) uniform in [-R, R], x within [-1, 1] by its range; c by ridge
    regression. R and the ridge are those of the least generalised cross-validation, one SVD for each R. A box that is
    too large fails as one that is too small does: R goes with the frequency of the target, which is the paper's useful
    message. Its other one, a floor of the error below which no network of a small box comes, is a floor of |c| on a
    compact set: see `bandlimit_error`.

    Args:
        n_units: of the hidden layer.
        scale: R, or "gcv" for the best of 1/4, 1/2, ..., 64.
        ridge: by the largest squared singular value of the hidden layer, zero for least squares; or "gcv".
        activation: s: "tanh", "relu" or "cos".
        random_state: of a and b.

    Attributes:
        centre_, half_range_: of the features, by which they come into [-1, 1]; (features,).
        weights_, offsets_: a (n_units, features) and b (n_units,).
        coef_, intercept_: c (n_units,), and what is added.
        scale_, ridge_: that were taken.
        effective_rank_: degrees of freedom of the fit.
        coef_norm_: |c|.
        rounding_: |c|_1 times the rounding of float64: what predictions may be off by rounding alone.
    """

    def __init__(
        self,
        n_units: int = 200,
        *,
        scale: float | Literal["gcv"] = "gcv",
        ridge: float | Literal["gcv"] = "gcv",
        activation: Activation = "tanh",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_units = n_units
        self.scale = scale
        self.ridge = ridge
        self.activation = activation
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> RandomNet:
        """Draws the hidden layer and fits the output to X (samples, features) and y (samples,); itself.

        A warning says so where rounding alone moves predictions by 1e-5 of the target's deviation.
        """
        table, target = self._table(X, fit=True, y=y, y_numeric=True, ensure_min_samples=2)
        at_least_one(n_units=self.n_units)
        if self.scale != "gcv":
            positive(scale=self.scale)
        if self.ridge != "gcv" and self.ridge:
            positive(ridge=self.ridge)
        target = np.asarray(target, np.float64)
        unit = power_of_two(target)
        target = target / unit
        low, high = table.min(axis=0) / 2, table.max(axis=0) / 2
        self.centre_, half = low + high, high - low
        self.half_range_ = np.where(half > 0, half, 1.0)
        x = self._scaled(table)
        drawn = generator_from(self.random_state).uniform(-1, 1, (self.n_units, x.shape[1] + 1))
        ridges = RIDGES if self.ridge == "gcv" else np.array([float(self.ridge)])
        best: tuple[float, Dense, float, float] | None = None
        for scale in SCALES if self.scale == "gcv" else (float(self.scale),):
            h = hidden(x, scale * drawn[:, :-1], scale * drawn[:, -1], self.activation)
            mean = h.mean(axis=0)
            found = validated(h - mean, target - target.mean(), ridges)
            if best is None or found[0] < best[0]:
                best, self.scale_ = found, scale
                self.intercept_ = float(target.mean() - mean @ found[1]) * unit
                rounding = float(np.abs(found[1]) @ np.abs(h).max(axis=0)) * np.finfo(float).eps
        assert best is not None
        self.weights_, self.offsets_ = self.scale_ * drawn[:, :-1], self.scale_ * drawn[:, -1]
        self.coef_, self.effective_rank_, self.ridge_ = best[1] * unit, best[2], best[3]
        self.coef_norm_ = float(np.linalg.norm(best[1])) * unit
        self.rounding_ = rounding * unit
        if rounding > ROUNDING * target.std() > 0:
            warnings.warn(
                f"RandomNet: |c| = {self.coef_norm_:.2g} rounds predictions by {self.rounding_:.2g}: a larger ridge "
                f"or another scale than {self.scale_:.3g} needs less",
                stacklevel=2,
            )
        return self

    @same_kind
    def predict(self, X: Any) -> Any:
        """f (samples,) of rows."""
        return hidden(self._scaled(self._table(X)), self.weights_, self.offsets_, self.activation) @ self.coef_ + (
            self.intercept_
        )

    def _scaled(self, table: Dense) -> Dense:
        found: Dense = (table / 2 - self.centre_ / 2) / self.half_range_ * 2
        return found
