"""Gaussian processes in time as linear differential equations: posteriors by one pass forth and one back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtrs

from eckart.arrays import Dense

Kernel = Literal["matern-1/2", "matern-3/2"]
WHOLE = 200
"""Values of functions up to which their whole covariance is faster than filters."""


def correlation(kernel: Kernel, steps: Dense) -> Dense:
    """exp(-x) of x = dt, or (1 + x) exp(-x) of x = sqrt(3) dt."""
    if kernel == "matern-1/2":
        return np.exp(-steps)
    x = np.minimum(np.sqrt(3) * steps, 1e3)
    found: Dense = (1 + x) * np.exp(-x)
    return found


def transition(kernel: Kernel, steps: Dense) -> tuple[Dense, Dense]:
    """A and Q of the state after steps (n,) of time: s(t + dt) = A s(t) + Normal(0, Q), both (n, p, p).

    The stationary covariance is I, of u alone, p = 1, under exp(-x), x = dt; and of u and its derivative over
    sqrt(3), p = 2, under (1 + x) exp(-x), x = sqrt(3) dt. The length scale is 1. Q = I - A A^T.
    """
    if kernel == "matern-1/2":
        a = np.exp(-steps)[:, None, None]
        return a, 1 - np.square(a)
    x = np.sqrt(3) * steps
    decay = np.exp(-x)
    # A step to infinity is one to a state that knows nothing of this one.
    x = np.where(decay > 0, x, 0.0)
    a = np.array([[1 + x, x], [-x, 1 - x]]).transpose(2, 0, 1) * decay[:, None, None]
    return a, np.eye(2) - a @ np.swapaxes(a, 1, 2)


@dataclass(frozen=True)
class MarkovPosterior:
    """r functions of time, independent and of one kernel before, after what was seen of them.

    Attributes:
        kernel: of all.
        length: its length scale.
        times: where something was seen (n,), ascending.
        filtered: mean (n, p r) of the state by what was seen until then.
        spread: its covariance (n, p r, p r).
        pull: by what the state there, as predicted, still moves: the score (n, p r) of what is seen from then on.
        hold: its covariance (n, p r, p r).
        mean: of the functions (n, r), by all that was seen.
        covariance: of them (n, r, r).
        evidence: the logarithm of what was seen, integrated over the functions.
    """

    kernel: Kernel
    length: float
    times: Dense
    filtered: Dense
    spread: Dense
    pull: Dense
    hold: Dense
    mean: Dense
    covariance: Dense
    evidence: float

    def at(self, times: Dense) -> tuple[Dense, Dense]:
        """Mean (m, r) and covariance (m, r, r) of the functions at times (m,), exact."""
        after = np.searchsorted(self.times, times, side="right")
        n, r, d = len(self.times), self.mean.shape[1], self.filtered.shape[1]
        held, seen = (after > 0)[:, None], (after < n)[:, None]
        left, right = np.maximum(after - 1, 0), np.minimum(after, n - 1)
        a, q = _blocks(self.kernel, np.abs(times - self.times[left]) / self.length, r)
        m = np.where(held, (a @ self.filtered[left][..., None])[..., 0], 0.0)
        p = np.where(held[..., None], a @ self.spread[left] @ np.swapaxes(a, 1, 2) + q, np.eye(d))
        b = np.swapaxes(_blocks(self.kernel, np.abs(self.times[right] - times) / self.length, r)[0], 1, 2)
        s = np.where(seen, (b @ self.pull[right][..., None])[..., 0], 0.0)
        hold = np.where(seen[..., None], b @ self.hold[right] @ np.swapaxes(b, 1, 2), 0.0)
        mean = m + (p @ s[..., None])[..., 0]
        return mean[:, :r], (p - p @ hold @ p)[:, :r, :r]


def _blocks(kernel: Kernel, steps: Dense, r: int) -> tuple[Dense, Dense]:
    """`transition` of r functions at once, the derivatives behind all functions."""
    return tuple(
        np.einsum("npq,rs->nprqs", each, np.eye(r)).reshape(len(steps), each.shape[1] * r, -1)
        for each in transition(kernel, steps)
    )


def roots(precision: Dense, shift: Dense) -> tuple[Dense, Dense]:
    """L (n, r, r) and z (n, r) with L L^T the precision and L z the shift, of messages exp(shift u - u precision u/2).

    To a constant, that is what z = L^T u + Normal(0, I) says of u.
    """
    alone = precision.shape[-1] == 1  # of one function, which is its own eigenvalue
    values, vectors = (precision[..., 0], np.ones_like(precision)) if alone else np.linalg.eigh(precision)
    sound = values > values.shape[-1] * np.finfo(float).eps * values[:, -1:]
    root = np.sqrt(np.where(sound, values, 1.0))
    z = (np.swapaxes(vectors, 1, 2) @ shift[..., None])[..., 0] * sound / root
    return vectors * (sound * root)[:, None, :], z


def smoothed(
    kernel: Kernel, length: float, times: Dense, precision: Dense, shift: Dense, *, evidence_only: bool = False
) -> MarkovPosterior:
    """The posterior of r functions under messages exp(shift_i u(t_i) - u(t_i) precision_i u(t_i) / 2).

    A Kalman filter, and back by the recursion of Bryson and Frazier (1963), in which nothing is inverted but
    I + L^T P L: equal or close times do no harm. Of work n (p r)^3.

    Args:
        kernel: of each function, with variance 1.
        length: its length scale.
        times: (n,), ascending.
        precision: (n, r, r), positive semi-definite.
        shift: (n, r), in the range of the precision.
        evidence_only: whether the pass back is left out, and all but the evidence with it.
    """
    n, r = shift.shape
    a, q = _blocks(kernel, np.diff(times, prepend=times[0]) / length, r)
    d = a.shape[1]
    low, z = roots(precision, shift)
    m, p, identity = np.zeros(d), np.eye(d), np.eye(r)
    before, past = np.empty((n, d)), np.empty((n, d, d))
    filtered, spread = np.empty((n, d)), np.empty((n, d, d))
    gains, inverses, scores = np.empty((n, d, r)), np.empty((n, r, r)), np.empty((n, r))
    evidence = float(np.square(z).sum()) / 2
    for i in range(n):
        if i:
            m, p = a[i] @ m, a[i] @ p @ a[i].T + q[i]
        before[i], past[i] = m, p
        root = low[i]
        crossed = p[:, :r] @ root
        inner = root.T @ crossed[:r]
        inner.flat[:: r + 1] += 1
        factor = dpotrf(inner, lower=1, clean=0)[0]
        evidence -= float(np.log(factor.flat[:: r + 1]).sum())
        inverse = dpotrs(factor, identity, lower=1)[0]
        rest = z[i] - root.T @ m[:r]
        weighted = inverse @ rest
        evidence -= float(rest @ weighted) / 2
        gain = crossed @ inverse
        m = m + crossed @ weighted
        p = p - gain @ crossed.T
        filtered[i], spread[i], gains[i], inverses[i], scores[i] = m, p, gain, inverse, weighted
    pull, hold = np.zeros((n, d)), np.zeros((n, d, d))
    if not evidence_only:
        said = low @ inverses
        fresh = said @ np.swapaxes(low, 1, 2)
        moved = (low @ scores[..., None])[..., 0]
        kept = np.broadcast_to(np.eye(d), (n, d, d)).copy()
        kept[:, :, :r] -= gains @ np.swapaxes(low, 1, 2)
        # What comes from behind goes through (I - K L^T) A at once.
        ways = np.swapaxes(a[1:] @ kept[:-1], 1, 2)
        s, h = np.zeros(d), np.zeros((d, d))
        for i in range(n - 1, -1, -1):
            if i < n - 1:
                s, h = ways[i] @ s, ways[i] @ h @ ways[i].T
            s[:r] += moved[i]
            h[:r, :r] += fresh[i]
            pull[i], hold[i] = s, h
    mean = before + (past @ pull[..., None])[..., 0]
    covariance = past - past @ hold @ past
    return MarkovPosterior(
        kernel, length, times, filtered, spread, pull, hold, mean[:, :r], covariance[:, :r, :r], evidence
    )


class Marginals(NamedTuple):
    """Mean (n, r) and covariance (n, r, r) of functions at the times where they were seen, and the log evidence."""

    mean: Dense
    covariance: Dense
    evidence: float

    def prior_moment(self, precision: Dense, shift: Dense) -> Dense:
        """E u K^-1 u^T (r, r), K the covariance before of one function at all times, from the messages.

        As K^-1 E u = shift - precision E u, and (K^-1 x I) Cov = I - precision Cov.
        """
        left = shift - (precision @ self.mean[..., None])[..., 0]
        whole = self.mean.T @ left + len(shift) * np.eye(shift.shape[1]) - (self.covariance @ precision).sum(axis=0)
        found: Dense = (whole + whole.T) / 2
        return found


def marginals(
    kernel: Kernel, length: float, times: Dense, precision: Dense, shift: Dense, *, evidence_only: bool = False
) -> Marginals:
    """What `smoothed` says at the times themselves; of few values by the whole covariance matrix.

    With one only of the evidence the others are zero.
    """
    n, r = shift.shape
    if n * r > WHOLE:
        found = smoothed(kernel, length, times, precision, shift, evidence_only=evidence_only)
        return Marginals(found.mean, found.covariance, found.evidence)
    before = correlation(kernel, np.abs(times[:, None] - times) / length)
    low, z = roots(precision, shift)
    # K x I, and L of all times, as (n r, n r) and (n r, n r) with one block a time.
    crossed = np.einsum("ij,jab->iajb", before, low).reshape(n * r, n * r)
    inner = np.einsum("ica,icjb->iajb", low, crossed.reshape(n, r, n, r)).reshape(n * r, n * r)
    inner.flat[:: n * r + 1] += 1
    factor = dpotrf(inner, lower=1)[0]
    white = dtrtrs(factor, z.ravel(), lower=1)[0]
    evidence = float(np.square(z).sum() - white @ white) / 2 - float(np.log(np.diagonal(factor)).sum())
    if evidence_only:
        return Marginals(np.zeros((n, r)), np.zeros((n, r, r)), evidence)
    half = dtrsm(1.0, factor, crossed, side=1, lower=1, trans_a=1).reshape(n, r, n * r)
    covariance = np.eye(r) - half @ np.swapaxes(half, 1, 2)
    # K L (I + L^T K L)^-1 z.
    return Marginals(half @ white, covariance, evidence)
