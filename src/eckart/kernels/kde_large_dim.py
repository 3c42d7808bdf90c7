"""Densities by kernels, in few dimensions and in many."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import brentq

from eckart.arrays import Dense, dense, power_of_two
from eckart.errors import Refused
from eckart.kernels.contract import kernel_method
from eckart.linalg.distances import squared_distances
from eckart.linalg.log_sums import leave_one_out, log_sums
from eckart.linalg.smooth_bins import SmoothBins
from eckart.scikit.base import Estimator, generator_from, positive, same_kind
from eckart.scikit.planted import Planted

SAMPLE = 500
"""Points of which it is told how many others make up their estimates."""
BLOCK = 64
"""Points whose distances to all are held at once."""
FEW = 10.0
"""Points that make up an estimate, below which it is one of few."""
OCTAVES, STEPS, WIDEST = 12, 4, 4.0
"""Widths that are tried: four an octave, down from four standard deviations."""
Rule = Literal["loo", "large-dim", "scott", "silverman"]


def thresholds(n: int, d: int) -> dict[str, float]:
    """Widths at which the estimate of N(0, I) changes its nature, for d to infinity at a fixed alpha = ln n / d.

    The estimate at a typical x, |x|^2 = d, is the partition function of a random energy model: with v = h^2,
    ln E K = d phi(1), phi(b) = -ln(1 + b / v) / 2 - (b / v) / (2 (1 + b / v)), and it is made of few points where
    alpha < phi'(1) - phi(1), that is below

        few: alpha = ln(1 + 1 / v) / 2 - v / (2 (1 + v)^2).

    The sum of squared weights is the estimate of half that v, so that sqrt(2) `few` is where few points make up the
    variance, and the central limit theorem ends. Between the two the sum is that of its mean and fluctuates as a
    stable law. `noise`, where the variance is the square of the mean, lies between: alpha = ln(1 + 1 / v)
    - ln(1 + 2 / v) / 2 + 1 / (1 + v) - 1 / (2 + v).

    The mean of ln rho_h grows as h falls to `few`, and below it is -ln(v) / 2 - r / (2 v) with r the squared distance
    to the nearest point by d, greatest at v = r = q + q^2, q = v_few / (1 + v_few): `best`, a little below `few`.

    Args:
        n: points, at least 2.
        d: dimensions.

    Returns:
        `best`, `few`, `noise`, `limit` (the paper's h_G is `few`, its h_CLT `limit`), in units of the spread.
    """
    alpha = np.log(n) / d

    def few(v: float) -> float:
        return float(np.log1p(1 / v) / 2 - v / (2 * (1 + v) ** 2) - alpha)

    def noise(v: float) -> float:
        return float(np.log1p(1 / v) - np.log1p(2 / v) / 2 + 1 / (1 + v) - 1 / (2 + v) - alpha)

    first, second = (np.exp(brentq(lambda log, f=f: f(np.exp(log)), -700, 40)) for f in (few, noise))
    share = first / (1 + first)
    squares = {"best": share + share**2, "few": first, "noise": second, "limit": 2 * first}
    return {name: float(np.sqrt(v)) for name, v in squares.items()}


def rule_of_thumb(rule: str, n: int, d: int) -> float:
    """Scott's n^(-1 / (d + 4)), Silverman's (n (d + 2) / 4)^(-1 / (d + 4)), or "large-dim", `thresholds`' best."""
    if rule == "large-dim":
        return thresholds(n, d)["best"]
    return float((n if rule == "scott" else n * (d + 2) / 4) ** (-1 / (d + 4)))


def best_width(z: Dense) -> float:
    """The width of greatest leave-one-out likelihood, between those that are tried by the parabola of three.

    Points that coincide are left out together: without that the likelihood of duplicates grows without end as the
    width falls.
    """
    widths, sums = leave_one_out(z, WIDEST, OCTAVES, STEPS)
    likelihood = sums.mean(0) - z.shape[1] * np.log(widths)
    at = int(likelihood.argmax())
    if not 0 < at < len(widths) - 1:
        return float(widths[at])
    low, middle, high = likelihood[at - 1 : at + 2]
    shift = (low - high) / (2 * (low - 2 * middle + high)) if low - 2 * middle + high < 0 else 0.0
    return float(widths[at] * (widths[at + 1] / widths[at]) ** shift)


def tail_index(z: Dense, width: float, every: int = 1) -> float:
    """Hill's index of weights e^(-|x - z|^2 / 2 h^2), over the largest sqrt(n), the median over every some x of z.

    1 / (the mean of ln w_i - ln w_k+1 over i up to k), Hill 1975; Inf where these are all equal.

    Args:
        z: (n, d), two or more.
        width: h.
        every: of which x, every so many.
    """
    if len(z) < 3:
        return np.inf
    count = min(len(z) - 2, round(len(z) ** 0.5))
    found = []
    for start in range(0, len(z), every * BLOCK):
        own = np.arange(start, min(start + every * BLOCK, len(z)), every)
        far = squared_distances(torch.from_numpy(z[own]), torch.from_numpy(z)).numpy()
        far[np.arange(len(own)), own] = np.inf
        near = np.partition(far, count, axis=1)[:, : count + 1]
        gaps = (near[:, -1:] - near[:, :-1]).mean(1) / (2 * width**2)
        found.append(np.divide(1, gaps, out=np.full(len(own), np.inf), where=gaps > 0))
    return float(np.median(np.concatenate(found)))


def _planted(rng: np.random.Generator) -> Planted:
    x, new = rng.standard_normal((300, 2)) @ [[3.0, 0.0], [1.0, 0.2]] + 5, rng.standard_normal((100, 2))
    truth = -np.square(new).sum(1) / 2 - np.log(2 * np.pi) - np.log(0.6)
    moved = new @ [[3.0, 0.0], [1.0, 0.2]] + 5
    return Planted({"X": x}, lambda fitted: np.mean(truth - fitted.score_samples(moved)), 0.15)


@kernel_method(
    "kde-large-dim",
    paper="Biroli and Mezard 2024, arXiv 2408.05807",
    kind="density",
    gives="logarithms of a density",
    planted=_planted,
)
class KernelDensity(Estimator):
    """A density by Gaussian kernels, with a width that is chosen, and how many points each estimate is made of.

    In d dimensions with ln n / d fixed the estimate changes its nature with its width h (`thresholds`): a mean to which
    the central limit theorem applies, a sum that fluctuates as a stable law, and a few nearest points alone. The best
    width lies among the last two, which is so from some 20 dimensions on, and in fewer the closed form is too narrow.
    Thresholds here are derived from the random energy model, not copied: see there.

    The default is the leave-one-out likelihood of all widths at once, from one pass over all distances: it is right in
    any number of dimensions, and needs no law of the data.

    The kernel has the shape of the data: `shape` "full" whitens by the covariance first, "diagonal" by each feature's
    spread, "round" by the mean of their squares. Widths are in those units.

    Args:
        bandwidth: "loo", "large-dim" (`thresholds`' best), "scott", "silverman", a number; or a matrix H (features,
            features), the covariance of the kernel in the units of X, with which the width is 1 and no shape is taken.
        shape: "full", "diagonal" or "round".
        binned: in up to 3 dimensions, whether a grid is smoothed once, after which an estimate costs no distances: with
            errors below 1e-4 of the peak.

    Attributes:
        bandwidth_: h.
        effective_points_: the median of (sum of w)^2 / sum of w^2 over some 500 points, by weights w of the others.
        tail_index_: Hill's index of the weights at the same points, over the largest sqrt(n) of them, the median: below
            1 a sum of such weights is of a few, below 2 it has no variance and the central limit theorem fails.
        regime_: "few-points" where these are below 10, "heavy-tail" where those of w^2 are, "classical".
        members_: whitened, (n, features).
        mean_: (features,).
        rotation_: (features, features); whitened is (x - mean_) @ rotation_.
        log_volume_: ln |det rotation_|.
    """

    def __init__(
        self,
        bandwidth: Rule | float | Any = "loo",
        *,
        shape: Literal["full", "diagonal", "round"] = "full",
        binned: bool = False,
    ) -> None:
        self.bandwidth = bandwidth
        self.shape = shape
        self.binned = binned

    def fit(self, X: Any, y: Any = None) -> KernelDensity:
        """The density of rows X (samples, features); itself."""
        table = self._table(X, fit=True)
        n, d = table.shape
        if n < 2:
            raise Refused(f"n_samples = {n}: of one sample there is no spread; a density needs 2 or more")
        if self.binned and d > 3:
            raise Refused(f"binned=True in {d} dimensions: a grid is for 3 at most")
        self._whiten(table)
        self.bandwidth_ = self._width(n, d)
        _, sums = leave_one_out(self.members_, self.bandwidth_, 2, 2, every=-(-n // SAMPLE))
        # Sums of w, w^2 and w^4: their widths are h, h / sqrt(2) and h / 2.
        plain, squares, fourth = (sums[:, i] + np.log(n - 1) for i in range(3))
        self.effective_points_ = float(np.median(np.exp(2 * plain - squares)))
        of_squares = float(np.median(np.exp(2 * squares - fourth)))
        few, heavy = self.effective_points_ < FEW, of_squares < FEW
        self.tail_index_ = tail_index(self.members_, self.bandwidth_, -(-n // SAMPLE))
        self.regime_ = "few-points" if few else "heavy-tail" if heavy else "classical"
        if self.binned:
            bins = SmoothBins.of(self.members_, self.bandwidth_)
            self.grid_, self.grid_start_, self.grid_step_ = bins.log_density, bins.start, bins.step
        return self

    def _of_matrix(self, table: Dense) -> None:
        d = table.shape[1]
        held = dense(self.bandwidth, "bandwidth")
        scale = power_of_two(held)
        if held.shape != (d, d) or not np.allclose(held / scale, held.T / scale, rtol=1e-12, atol=0):
            raise Refused(f"bandwidth of shape {held.shape} is no symmetric matrix ({d}, {d})")
        # A power of two whose square root is one too.
        scale = scale if np.log2(scale) % 2 == 0 else 2 * scale
        values, vectors = np.linalg.eigh(held / scale)
        if values[0] <= d * np.finfo(float).eps * values[-1]:
            raise Refused(
                f"bandwidth has the eigenvalue {values[0] * scale:.3g}: a covariance with all above 0 is needed"
            )
        self.mean_ = table.mean(0)
        self.rotation_ = vectors / np.sqrt(values) / np.sqrt(scale)
        self.log_volume_ = float(-np.log(values).sum() / 2 - d * np.log(scale) / 2)
        with np.errstate(over="ignore", invalid="ignore"):
            self.members_ = (table - self.mean_) @ self.rotation_
        if not np.isfinite(self.members_).all():
            raise Refused("X spans more than float64 holds by this bandwidth: divide both by powers of two")

    def _whiten(self, table: Dense) -> None:
        if np.ndim(self.bandwidth) > 0:
            self._of_matrix(table)
            return
        n, d = table.shape
        scale = power_of_two(table)
        centred = table / scale
        mean = centred.mean(0)
        centred = centred - mean
        if self.shape == "full":
            values, vectors = np.linalg.svd(centred, full_matrices=False)[1:]
            spread, turn = values / np.sqrt(n), vectors.T
            if len(spread) < d or spread[-1] <= d * np.finfo(float).eps * max(spread[0], 1e-300):
                rank = int((spread > d * np.finfo(float).eps * max(spread[0], 1e-300)).sum())
                raise Refused(
                    f"{n} samples span {rank} of {d} dimensions, and have no density: reduce the dimension first, "
                    "or take shape='diagonal'"
                )
        elif self.shape in ("diagonal", "round"):
            spread, turn = centred.std(0), np.eye(d)
            if self.shape == "round":
                spread = np.full(d, np.sqrt(np.mean(spread**2)))
            if not (spread > 0).all():
                raise Refused(f"feature {int(spread.argmin())} is constant, and has no density: leave it out")
        else:
            raise Refused(f"shape={self.shape!r} is none of full, diagonal, round")
        self.mean_ = mean * scale
        self.rotation_ = turn / spread / scale
        self.log_volume_ = float(-np.log(spread).sum() - d * np.log(scale))
        if not np.isfinite(self.rotation_).all():
            raise Refused("the spread of X is below the numbers of 64 bits: multiply X by a power of two")
        self.members_ = centred @ (turn / spread)

    def _width(self, n: int, d: int) -> float:
        if np.ndim(self.bandwidth) > 0:
            return 1.0
        if isinstance(self.bandwidth, str):
            if self.bandwidth == "loo":
                return best_width(self.members_)
            if self.bandwidth in ("large-dim", "scott", "silverman"):
                return rule_of_thumb(self.bandwidth, n, d)
            raise Refused(f"bandwidth={self.bandwidth!r} is no number and none of loo, large-dim, scott, silverman")
        return positive(bandwidth=self.bandwidth)

    @same_kind
    def score_samples(self, X: Any) -> Any:
        """ln of the density (samples,) at rows."""
        table = self._table(X)
        z = (table - self.mean_) @ self.rotation_
        d, h = z.shape[1], self.bandwidth_
        exact = np.ones(len(z), bool)
        found = np.empty(len(z))
        if self.binned:
            found, exact = SmoothBins(self.grid_, self.grid_start_, self.grid_step_)(z)
        found[exact] = log_sums(z[exact], self.members_, h) - d * np.log(h) - d * np.log(2 * np.pi) / 2
        found[exact] -= np.log(len(self.members_))
        return found + self.log_volume_

    def score(self, X: Any, y: Any = None) -> float:
        """The sum of `score_samples`, as scikit-learn's."""
        return float(np.asarray(self.score_samples(X), np.float64).sum())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.Generator | np.random.RandomState | None = None
    ) -> Dense:
        """Draws (n_samples, features) from the density."""
        rng = generator_from(random_state)
        z = self.members_[rng.integers(len(self.members_), size=n_samples)]
        z = z + self.bandwidth_ * rng.standard_normal(z.shape)
        found: Dense = np.linalg.solve(self.rotation_.T, z.T).T + self.mean_
        return found
