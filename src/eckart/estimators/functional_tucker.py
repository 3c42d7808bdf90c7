"""Tucker decomposition of numbers at continuous coordinates: functions of each coordinate, and a core between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import digamma

from eckart.arrays import Dense, number, power_of_two, whole
from eckart.errors import Refused
from eckart.estimators._tucker_modes import RATE, SHAPE, Mode, TuckerPosterior, core_given, gamma_far
from eckart.estimators.contract import estimator
from eckart.linalg.khatri_rao import contracted, paired
from eckart.linalg.markov_gp import Kernel, MarkovPosterior, smoothed
from eckart.linalg.mode_products import mode_products
from eckart.linalg.solution import Solution
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import RegressorMixin
from eckart.scikit.planted import Planted

MOST = 256
"""Entries of a core, whose covariance has the square of that."""
SURE, HELD = 100.0, 3
"""The noise's precision to begin with, and sweeps that it stays: what is called noise early is never found again."""
FIRST = 0.1
"""A length scale to begin with, by the range of the coordinate."""


def tucker_of_functions(
    coordinates: Dense,
    y: Dense,
    ranks: Sequence[int],
    kernel: Kernel = "matern-3/2",
    *,
    length: float | None = None,
    damping: float = 0.0,
    tolerance: float = 1e-3,
    max_iter: int = 100,
    generator: np.random.Generator | None = None,
) -> Solution[TuckerPosterior]:
    """q(u_1) ... q(u_K) q(G) q(tau) near the posterior of y_n ~ Normal(G x_1 u_1(t_n1) x_2 ..., 1/tau).

    The R_k functions of a mode are Gaussian processes (`smoothed`), G ~ Normal(0, I), tau ~ Gamma. Every target says of
    u_k(t) what a Gaussian of precision E tau E a a^T and shift E tau y E a would, a = G x_j u_j over the others j: the
    messages of Fang et al. 2024 (conditional expectation propagation, section 4), and of mean-field variational
    inference too, so that without damping every step raises the bound on the evidence. Only their damped sum over the
    targets of a coordinate is kept, as damping is linear.

    A length scale moves every other sweep to where the evidence of its functions under their messages is larger, which
    raises the bound too; and where nothing is damped, each u_k is turned, and the core against it (`best_turn`),
    without which sweeps are several times as many.

    Args:
        coordinates: (n, K), within about 0..1.
        y: (n,), of mean 0 and variance 1.
        ranks: R_k.
        kernel: of the functions.
        length: its length scale; None to learn one for each mode.
        damping: share of the old messages that stays; the paper's is 0.5 for the functions.
        tolerance: of the bound's gain in a sweep, in nats a target.
        max_iter: sweeps at most.
        generator: of the functions to begin with.

    Returns:
        The posterior of the highest bound; `history` has the bound by the number of targets.
    """
    n, k = coordinates.shape
    shape, rng = tuple(ranks), np.random.default_rng(generator)
    modes = [Mode.begun(each, r, length or FIRST, rng) for each, r in zip(coordinates.T, shape, strict=True)]
    core = core_given(modes, y, SURE)
    tolerance = tolerance if y.any() else inf  # there is nothing to explain
    best: tuple[float, Any] = (-inf, None)
    history, precision = list[float](), SURE
    for sweep in range(1, max_iter + 1):
        pairs, middle = paired(core.second, shape), core.mean.reshape(shape)
        for j, mode in enumerate(modes):
            known, told = [m.squares[m.which] for m in modes], [m.means[m.which] for m in modes]
            hold = precision * (mode.sums @ contracted(pairs, known, j)).reshape(-1, shape[j], shape[j])
            shift = precision * (mode.sums @ (contracted(middle, told, j) * y[:, None]))
            mode.hear(hold, shift, damping if sweep > 1 else 0.0)
            mode.smooth(kernel, learns=length is None and sweep % 2 == 1)
            if not damping:
                alone = [np.eye(r).reshape(1, -1) for r in shape]
                inverse = mode.turn_to(contracted(pairs, alone, j).reshape(shape[j], shape[j]), prod(shape) // shape[j])
                middle = mode_products(middle, [inverse if i == j else None for i in range(k)])
                pairs = mode_products(pairs, [np.kron(inverse, inverse) if i == j else None for i in range(k)])
        core = core_given(modes, y, precision)
        many, rate = SHAPE + n / 2, RATE + core.rest / 2
        if sweep > HELD:
            precision = many / rate
        else:
            rate = many / precision
        likely = n / 2 * (digamma(many) - np.log(rate) - np.log(2 * np.pi)) - precision * core.rest / 2
        bound = float(likely) - sum(mode.far for mode in modes) - core.far - gamma_far(many, rate)
        history.append(bound / n)
        if bound > best[0]:
            # The core of the functions as they were before they were turned.
            whole: Dense = np.ones((1, 1))
            for mode in modes:
                whole = np.kron(whole, mode.turn.T)
            said = [(kernel, mode.length, mode.times, *mode.messages) for mode in modes]
            best = bound, (said, (whole @ core.mean).reshape(shape), whole @ core.spread @ whole.T, 1 / precision)
        if sweep > HELD + 1 and abs(history[-1] - history[-2]) <= tolerance:
            break
    gain = history[-1] - history[-2] if len(history) > HELD + 1 else inf
    message = f"the bound on the evidence moved by {gain:.1e} nats a target in sweep {len(history)}"
    said, mean, spread, noise = best[1]
    value = TuckerPosterior(tuple(smoothed(*each) for each in said), mean, spread, noise)
    return Solution(value, abs(gain) <= tolerance, len(history), tuple(history), message)


def _planted(rng: np.random.Generator) -> Planted:
    def truth(x: Dense) -> Dense:
        found: Dense = np.sin(6 * x[:, 0]) * np.cos(4 * x[:, 1]) + x[:, 0] * x[:, 1]
        return found

    # Some of a grid that is not even, and points between.
    grid = [np.sort(rng.random(14)), np.sort(rng.random(12))]
    x = np.stack([g[rng.integers(0, len(g), 130)] for g in grid], axis=1)
    new = rng.uniform(0.1, 0.9, (200, 2))
    return Planted(
        {"X": x, "y": truth(x) + 0.05 * rng.standard_normal(len(x))},
        lambda fitted: np.linalg.norm(fitted.predict(new) - truth(new)) / np.linalg.norm(truth(new)),
        0.12,
        {"ranks": 2},
    )


@estimator(
    "functional-tucker",
    paper="Fang, Yu, Wang, Li, Kirby and Zhe 2024, arXiv 2311.04829",
    kind="regressor",
    gives="means and standard deviations at new coordinates",
    takes="coordinates (samples, modes)",
    planted=_planted,
    expression="Tucker",
)
class FunctionalTucker(RegressorMixin, Estimator):
    """Regression on coordinates by a Tucker decomposition whose factors are functions, Gaussian processes each.

    Fits `tucker_of_functions`. A coordinate is a number, not an index, and need not lie on a grid; far from all that
    were seen, functions return to zero and the prediction to the mean. Each mode costs as many small steps as it has
    distinct coordinates, and each target the square of the core's entries.

    As published, length scales are given and messages damped (length_scale=0.1, damping=0.5); the code of the paper
    holds a message to the core for every target, of which the sum is enough.

    Args:
        ranks: functions of each mode, a number for all or one for each; None for 3, or less where the core would have
            more than 64 entries or a quarter of the targets.
        kernel: "matern-1/2", rough, or "matern-3/2", with a derivative.
        length_scale: of the functions, by the range of their coordinate; "learn" to learn one for each mode.
        damping: of the messages, 0..1; without it the bound on the evidence never falls.
        tol: of the gain of the bound in a sweep, in nats a target.
        max_iter: sweeps at most.
        random_state: of the functions to begin with.

    Attributes:
        core_, core_covariance_: of the core, (R_1, ..., R_K) and (R, R) of R = R_1 R_2 ...
        functions_: of each mode, the arrays of its `MarkovPosterior` by name.
        length_scales_: (modes,), by the range of the coordinates.
        noise_: standard deviation of the noise.
        n_iter_, converged_, history_: sweeps, whether `tol` was reached, and the bound in nats a target.
    """

    def __init__(
        self,
        ranks: int | Sequence[int] | None = None,
        *,
        kernel: Kernel = "matern-3/2",
        length_scale: float | Literal["learn"] = "learn",
        damping: float = 0.0,
        tol: float = 3e-3,
        max_iter: int = 100,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.ranks = ranks
        self.kernel = kernel
        self.length_scale = length_scale
        self.damping = damping
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> FunctionalTucker:
        """Fits targets y (samples,) at coordinates X (samples, modes); itself."""
        table, target = self._table(X, fit=True, y=y, y_numeric=True)
        at_least_one(max_iter=self.max_iter)
        if (
            not isinstance(self.kernel, str)
            or self.kernel not in get_args(Kernel)
            or not 0 <= number(self.damping) < 1
            or not 0 <= number(self.tol) < inf
        ):
            raise Refused(
                f"kernel={self.kernel!r:.40}, damping={self.damping!r:.40}, tol={self.tol!r:.40}: "
                f"{' or '.join(get_args(Kernel))}, in [0, 1), and not negative"
            )
        scale: Any = self.length_scale
        length = None if isinstance(scale, str) and scale == "learn" else positive(length_scale=scale)
        ranks = self._ranks(*table.shape)
        self.unit_ = np.array([power_of_two(column) for column in table.T])
        self.origin_ = table.min(axis=0) / self.unit_
        span = table.max(axis=0) / self.unit_ - self.origin_
        self.span_ = np.where(span > 0, span, 1.0)
        size = power_of_two(target)
        held = target / size
        middle = float(held.mean())
        rest = held - middle
        spread = float(np.sqrt(np.mean(np.square(rest))))
        spread = spread if spread > 16 * np.finfo(float).eps * abs(middle) else 1.0
        self.mean_, self.scale_ = middle * size, spread * size
        solution = tucker_of_functions(
            self._times(table),
            rest / spread,
            ranks,
            self.kernel,
            length=length,
            damping=self.damping,
            tolerance=self.tol,
            max_iter=self.max_iter,
            generator=generator_from(self.random_state),
        )
        found = solution.value
        self.functions_ = [
            {name: getattr(each, name) for name in MarkovPosterior.__dataclass_fields__} for each in found.functions
        ]
        self.core_, self.core_covariance_, self.noise_ = found.core, found.spread, np.sqrt(found.noise) * self.scale_
        self.length_scales_ = np.array([each.length for each in found.functions])
        self._finished(solution)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Means (samples,) at coordinates X (samples, modes).

        Args:
            X: coordinates.
            return_std: whether the standard deviations (samples,) of new targets, noise included, come too.
        """
        mean, deviation = self._said(X)
        return (mean, deviation) if return_std else mean

    @same_kind
    def _of_kind(self, X: Any, numbers: Dense) -> Any:
        return numbers

    def _said(self, X: Any) -> tuple[Any, Any]:
        table = self._table(X)
        posterior = TuckerPosterior(
            tuple(MarkovPosterior(**each) for each in self.functions_), self.core_, self.core_covariance_, 0.0
        )
        mean, variance = posterior.at(list(self._times(table).T))
        deviation = np.hypot(np.sqrt(variance) * self.scale_, self.noise_)
        return self._of_kind(X, mean * self.scale_ + self.mean_), self._of_kind(X, deviation)

    def _times(self, table: Dense) -> Dense:
        found: Dense = (table / self.unit_ - self.origin_) / self.span_
        return found

    def _ranks(self, samples: int, modes: int) -> tuple[int, ...]:
        if self.ranks is None:
            return (max(r for r in (1, 2, 3) if r**modes <= min(64, samples / 4) or r == 1),) * modes
        each: Any = self.ranks if isinstance(self.ranks, list | tuple | np.ndarray) else (self.ranks,) * modes
        ranks = tuple(r for r in each if whole(r) and r >= 1)
        if len(ranks) != len(each) or len(ranks) != modes or prod(map(int, ranks)) > MOST:
            raise Refused(
                f"ranks={self.ranks!r:.80} for {modes} modes: a whole number for each is needed, at least 1, "
                f"with a product of at most {MOST}"
            )
        return tuple(int(r) for r in ranks)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # of features that are added and not multiplied, when there are many
        return tags
