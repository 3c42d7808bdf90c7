"""Gains of sensors and the signal that they saw, by descent on both."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy.linalg import lstsq
from scipy.optimize import bisect

from eckart.arrays import Array, Dense, back
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.estimators.self_calibration_ls import (
    Calibration,
    calibration_data,
    inverse_gains,
    planted_gains,
    unit_mean,
)
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted

Method = Literal["als", "pgd"]


def bounded(d: Dense, rho: float) -> Dense:
    """The nearest gains of mean 1 that are within rho of 1."""
    off = d - d.mean()
    if np.abs(off).max() <= rho:
        return np.asarray(1 + off)
    shift = bisect(lambda t: np.clip(off - t, -rho, rho).sum(), off.min() - rho, off.max() + rho)
    return np.asarray(1 + np.clip(off - shift, -rho, rho))


def descent_step(a: Dense, y: Dense, d: Dense, x: Dense, rho: float) -> tuple[Dense, Dense]:
    """A step of projected gradient descent on |diag(d) A_l x - y_l|^2, summed over l, with the best length for each.

    Cambareri and Jacques 2016, algorithm 1: both gradients at one point, that of d made orthogonal to ones so that the
    mean of d stays 1, and d then `bounded`.
    """
    seen = a @ x
    off = d * seen - y
    gx = np.einsum("pm,pmn->n", d * off, a)
    gd = (seen * off).sum(axis=0)
    gd -= gd.mean()
    lx, ld = np.square(d * (a @ gx)).sum(), np.square(gd * seen).sum()
    x = x - (gx @ gx / lx if lx > 0 else 0.0) * gx
    d = d - (gd @ gd / ld if ld > 0 else 0.0) * gd
    return bounded(d, rho), x


def alternating_step(a: Dense, y: Dense, d: Dense, x: Dense, rho: float) -> tuple[Dense, Dense]:
    """d, and then x, as the least squares solution given the other; the mean of d is 1, and d - 1 at most rho."""
    seen = a @ x
    power = np.square(seen).sum(axis=0)
    d = np.where(power > 0, (seen * y).sum(axis=0) / np.where(power > 0, power, 1.0), d)
    d = bounded(d / d.mean() if d.mean() > 0 else d, rho)
    return d, lstsq((d[:, None] * a).reshape(-1, a.shape[2]), y.ravel(), lapack_driver="gelsy")[0]


def _planted(rng: np.random.Generator) -> Planted:
    a, y, d, x = planted_gains(rng)
    return Planted(
        {"a": a, "y": y, "tolerance": 1e-10},
        lambda found: max(np.abs(found.value.gains - d).max(), np.abs(found.value.signal - x).max()),
        1e-8,
    )


@estimator(
    "blind-gain",
    paper="Cambareri and Jacques 2016, arXiv 1610.09028",
    kind="solver",
    gives="gains of sensors and the signal",
    planted=_planted,
)
def blind_gains(
    a: Array,
    y: Array,
    *,
    method: Method = "als",
    rho: float | None = None,
    start: Literal["ls", "ones"] | None = None,
    tolerance: float = 1e-8,
    max_iter: int = 1000,
) -> Solution[Calibration]:
    """Gains d and the signal x of y_l = diag(d) A_l x, l = 1..p: min sum_l |diag(d) A_l x - y_l|^2 over both.

    "pgd" is the paper's `descent_step` from d = 1 and x = mean of A_l^T y_l; "als" is `alternating_step`, which is as
    near the truth under noise in a small part of the steps, from the linear solution of `self-calibration-ls`.

    Args:
        a: A (p, m, n); for "pgd" from ones, its entries are taken to be independent and of one variance.
        y: (p, m).
        method: "als" or "pgd".
        rho: |d - 1| is at most this; None for no bound.
        start: "ls" from the linear solution, "ones" as the paper does; None for what goes with the method.
        tolerance: of |diag(d) A x - y| / |y|, or of what a step takes off it, where noise leaves a rest.
        max_iter: steps at most.

    Returns:
        d of mean 1, as only products of d and x are seen, and x; `history` and `error` are |diag(d) A x - y| / |y|.

    Raises:
        Refused: shapes do not go together, there are too few measurements, or a sensor measured nothing but zeros.
    """
    held, seen, scale_a, scale_y = calibration_data(a, y)
    if method not in get_args(Method) or start not in ("ls", "ones", None):
        raise Refused(f"method={method!r}, start={start!r}: {', '.join(get_args(Method))}; ls, ones")
    if rho is not None and not rho >= 0:
        raise Refused(f"rho={rho} must not be negative; 0 is gains that are known to be 1")
    bound = np.inf if rho is None else rho
    p, m, _ = held.shape
    if (start or {"als": "ls", "pgd": "ones"}[method]) == "ones":
        d = np.ones(m)
        x = np.einsum("pm,pmn->n", seen, held) / (p * m * np.square(held).mean())
    else:
        s, x = inverse_gains(held, seen)
        good = np.where(s > 0, s, np.inf)  # what came out negative starts at the mean of the others
        d = np.where(s > 0, 1 / good, (1 / good).sum() / (s > 0).sum())
        d, x = unit_mean(d, x)
        d = bounded(d, bound)
    step, size = {"als": alternating_step, "pgd": descent_step}[method], float(np.linalg.norm(seen))
    best, least, history, done = (d, x), np.inf, list[float](), False
    while True:
        history.append(float(np.linalg.norm(d * (held @ x) - seen)) / size)
        if history[-1] < least:
            best, least = (d, x), history[-1]
        done = least <= tolerance or (len(history) > 2 and abs(history[-2] - history[-1]) <= tolerance * history[-1])
        if done or len(history) > max_iter or not np.isfinite(history[-1]):
            break
        d, x = step(held, seen, d, x, bound)
    d, x = best
    message = f"|diag(d) A x - y| is {least:.1e} of |y| after {len(history) - 1} steps"
    value = Calibration(back(d, y), back(x / scale_a * scale_y, y))
    return Solution(value, bool(done), len(history) - 1, tuple(history), message, error=least)
