"""The parts of a variational posterior of a Tucker decomposition into functions: a mode, the core, the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.special import digamma, gammaln

from eckart.arrays import Dense
from eckart.linalg.khatri_rao import contracted, paired, second_moments, summed, unpaired
from eckart.linalg.markov_gp import Kernel, Marginals, MarkovPosterior, marginals
from eckart.linalg.turns import best_turn

SHAPE, RATE = 1.0, 1e-6
"""Of the Gamma law of the noise's precision before, the targets' variance being 1."""
STEP = 0.7
"""By what the logarithm of a length scale moves at first."""


@dataclass
class Mode:
    """q(u) of a mode: u at its distinct times, turned; `far` is its divergence from what stood before."""

    times: Dense
    which: Dense
    sums: sparse.csr_array
    means: Dense
    squares: Dense
    length: float
    messages: tuple[Dense, Dense]
    turn: Dense
    move: float = STEP
    far: float = 0.0
    posterior: Marginals | None = None

    @classmethod
    def begun(cls, coordinates: Dense, r: int, length: float, rng: np.random.Generator) -> Mode:
        """Cosines to begin with, slow ones and at random."""
        times, which = np.unique(coordinates, return_inverse=True)
        n = len(which)
        sums = sparse.csr_array((np.ones(n), (which, np.arange(n))), shape=(len(times), n))
        means = np.sqrt(2) * np.cos(times[:, None] * rng.normal(0, 4, r) + rng.uniform(0, 2 * np.pi, r))
        squares = second_moments(means, np.zeros((len(times), r, r)))
        messages = np.zeros((len(times), r, r)), np.zeros((len(times), r))
        return cls(times, which, sums, means, squares, length, messages, np.eye(r))

    def hear(self, hold: Dense, shift: Dense, kept: float) -> None:
        self.messages = (1 - kept) * hold + kept * self.messages[0], (1 - kept) * shift + kept * self.messages[1]

    def smooth(self, kernel: Kernel, *, learns: bool) -> None:
        found = marginals(kernel, self.length, self.times, *self.messages)
        if learns:
            other = self.length * np.exp(self.move)
            better = marginals(kernel, other, self.times, *self.messages, evidence_only=True).evidence > found.evidence
            if better:
                self.length, found = other, marginals(kernel, other, self.times, *self.messages)
            self.move *= 1.2 if better else -0.6
        hold, shift = self.messages
        self.posterior, self.turn, self.means = found, np.eye(shift.shape[1]), found.mean
        self.squares = second_moments(found.mean, found.covariance)
        said = (shift * found.mean).sum() - (hold.reshape(self.squares.shape) * self.squares).sum() / 2
        self.far = float(said) - found.evidence

    def turn_to(self, core: Dense, others: int) -> Dense:
        """Turns the functions by `best_turn` of the core's second moment along this mode; what turns the core, T^-T."""
        assert self.posterior is not None
        size = self.posterior.prior_moment(*self.messages)
        turn = self.turn = best_turn(size, core, len(self.times), others)
        self.far += float(np.trace(turn @ size @ turn.T) - np.trace(size)) / 2
        self.far -= len(self.times) * float(np.linalg.slogdet(turn)[1])
        self.means, self.squares = self.means @ turn.T, self.squares @ np.kron(turn, turn).T
        return np.linalg.inv(turn).T


class Core(NamedTuple):
    """q(G): its mean (R,), covariance, second moment (R, R), E |y - G ...|^2, and its divergence from Normal(0, I)."""

    mean: Dense
    spread: Dense
    second: Dense
    rest: float
    far: float


def core_given(modes: Sequence[Mode], y: Dense, precision: float) -> Core:
    shape = tuple(mode.means.shape[1] for mode in modes)
    seen = unpaired(summed([mode.squares[mode.which] for mode in modes]), shape)
    aims = summed([mode.means[mode.which] for mode in modes], y)
    factor = cho_factor(np.eye(len(seen)) + precision * seen, lower=True)
    spread = cho_solve(factor, np.eye(len(seen)))
    mean = precision * spread @ aims
    second = spread + np.outer(mean, mean)
    rest = max(float(y @ y) - 2 * float(mean @ aims) + float((second * seen).sum()), 0.0)
    far = float(np.trace(second) - len(mean)) / 2 + float(np.log(np.diagonal(factor[0])).sum())
    return Core(mean, spread, second, rest, far)


def gamma_far(shape: float, rate: float) -> float:
    """The divergence of Gamma(shape, rate) from Gamma(SHAPE, RATE)."""
    logs = (shape - SHAPE) * digamma(shape) - gammaln(shape) + gammaln(SHAPE) + SHAPE * np.log(rate / RATE)
    return float(logs + shape * (RATE - rate) / rate)


@dataclass(frozen=True)
class TuckerPosterior:
    """y = G x_1 u_1(t_1) x_2 u_2(t_2) ... + noise, after it was seen.

    Attributes:
        functions: of each mode.
        core: mean of G, (R_1, ..., R_K).
        spread: covariance of its entries, the last mode fastest, (R, R) of R = R_1 R_2 ...
        noise: variance of the noise, one over the mean of its precision.
    """

    functions: tuple[MarkovPosterior, ...]
    core: Dense
    spread: Dense
    noise: float

    def at(self, times: Sequence[Dense]) -> tuple[Dense, Dense]:
        """Mean and variance (n,) of G x_1 u_1 x_2 u_2 ..., without noise, at coordinates (n,) a mode."""
        means, squares = [], []
        for each, t in zip(self.functions, times, strict=True):
            distinct, which = np.unique(t, return_inverse=True)
            m, c = each.at(distinct)
            means.append(m[which])
            squares.append(second_moments(m, c)[which])
        mean = contracted(self.core, means)[:, 0]
        both = contracted(paired(self.spread + np.outer(self.core, self.core), self.core.shape), squares)[:, 0]
        return mean, np.maximum(both - np.square(mean), 0.0)
