"""Gains of sensors and the signal that they saw, from a linear least squares problem."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.linalg import eigh, qr, solve_triangular

from eckart.arrays import Array, Dense, back, dense, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted

Method = Literal["ls", "spectral"]


class Calibration(NamedTuple):
    """gains d (m,), of mean 1, and the signal x (n,): y_l = diag(d) A_l x."""

    gains: Array
    signal: Array


def unit_mean(gains: Dense, signal: Dense) -> tuple[Dense, Dense]:
    """The same products diag(d) A x with gains of mean 1."""
    mean = gains.mean()
    return gains / mean, signal * mean


def calibration_data(a: Array, y: Array) -> tuple[Dense, Dense, float, float]:
    """A (p, m, n) and y (p, m), checked and brought near 1 by powers of two, which come with them.

    Raises:
        Refused: shapes do not go together, there are fewer measurements than unknowns, or a sensor measured nothing.
    """
    held, seen = dense(a, "A", ndim=3), dense(y, "y")
    p, m, n = held.shape
    if seen.shape != (p, m) or p * m < m + n - 1:
        raise Refused(f"A of {held.shape} and y of {seen.shape}: {m + n - 1} measurements (p, m) or more are needed")
    scales = power_of_two(held), power_of_two(seen)
    held, seen = held / scales[0], seen / scales[1]
    silent = np.flatnonzero(~(np.abs(seen).max(axis=0) > 0))
    if len(silent) or not held.any():
        raise Refused(f"sensors {silent[:5].tolist()} measured nothing but zeros: their gains are anything; drop them")
    return held, seen, scales[0], scales[1]


def inverse_gains(a: Dense, y: Dense, basis: Dense | None = None) -> tuple[Dense, Dense]:
    """s and x with diag(y_l) s = A_l x for all l as nearly as can be where the mean of s is 1.

    s is eliminated exactly: what sensor i saw, y_.i (p,), is rotated to its length and zeros, so that of its rows one
    holds s_i, and the others x alone. With R the triangular factor of these others, the Schur complement of the normal
    equations is R^T R (n x n), which is never formed: its square root keeps the digits that it would lose.

    Args:
        a: A (p, m, n).
        y: (p, m), no column zero.
        basis: B (m, q), where s = B h; the identity where None.
    """
    lengths = np.linalg.norm(y, axis=0)
    directions = y / lengths
    first = np.einsum("pm,pmn->mn", directions, a)
    rest = (a - directions[:, :, None] * first).reshape(-1, a.shape[2])
    if basis is None:
        constraint = first.T @ (1 / lengths)
    else:
        q, triangle = np.linalg.qr(lengths[:, None] * basis)
        pulled = solve_triangular(triangle, basis.sum(axis=0), trans="T")
        rest = np.vstack([rest, first - q @ (q.T @ first)])
        constraint = first.T @ (q @ pulled)
    _, values, vt = np.linalg.svd(qr(rest, mode="r")[0][: a.shape[2]])
    # x = mu (R^T R)^-1 constraint, with mu the square of the least singular value: finite where that is zero.
    weights = np.where(values > values[-1], values[-1] / np.where(values > 0, values, 1.0), 1.0)
    x = vt.T @ (np.square(weights) * (vt @ constraint))
    if basis is None:
        s = (first @ x + values[-1] ** 2 / lengths) / lengths
    else:
        s = basis @ solve_triangular(triangle, q.T @ (first @ x) + values[-1] ** 2 * pulled)
    mean = s.mean()
    if not abs(mean) > 0:
        raise Refused("no inverse gains of a positive mean fit the measurements")
    return s / mean, x / mean


def least_singular(a: Dense, y: Dense, basis: Dense | None = None) -> tuple[Dense, Dense]:
    """s and x of the least singular value of the same equations: |s|^2 + |x|^2 is held instead of the mean of s.

    It depends on the units of x; columns of the two kinds are scaled to one mean length.
    """
    _, m, n = a.shape
    b = np.eye(m) if basis is None else basis
    unit = np.sqrt(np.square(y).sum() / m / (np.square(a).sum() / n))
    cross = -unit * b.T @ np.einsum("pm,pmn->mn", y, a)
    wide = unit * a.reshape(-1, n)
    gram = np.block([[b.T @ (np.square(y).sum(axis=0)[:, None] * b), cross], [cross.T, wide.T @ wide]])
    z = eigh(gram, subset_by_index=(0, 0))[1][:, 0]
    s, x = b @ z[: b.shape[1]], unit * z[b.shape[1] :]
    return s / s.mean(), x / s.mean()


def planted_gains(rng: np.random.Generator) -> tuple[Dense, Dense, Dense, Dense]:
    """A (4, 24, 8), y, d and x without noise."""
    a, x = rng.standard_normal((4, 24, 8)), rng.standard_normal(8)
    d = 1 + rng.uniform(-0.4, 0.4, 24)
    d, x = unit_mean(d, x)
    return a, d * (a @ x), d, x


def _planted(rng: np.random.Generator) -> Planted:
    a, y, d, x = planted_gains(rng)
    return Planted(
        {"a": a, "y": y},
        lambda found: max(np.abs(found.value.gains - d).max(), np.abs(found.value.signal - x).max()),
        1e-9,
    )


@estimator(
    "self-calibration-ls",
    paper="Ling and Strohmer 2016, arXiv 1611.04196",
    kind="solver",
    gives="gains of sensors and the signal",
    planted=_planted,
)
def self_calibration(a: Array, y: Array, *, method: Method = "ls", basis: Array | None = None) -> Solution[Calibration]:
    """Gains d and the signal x of y_l = diag(d) A_l x, l = 1..p, where A_l are known: linear in s = 1/d and x.

    diag(y_l) s - A_l x = 0 in the least squares sense, under sum(s) = m ("ls", `inverse_gains`) or on the unit sphere
    ("spectral", `least_singular`). Both are exact without noise, from about (m + n) log(m + n) measurements on. 1/d
    amplifies the noise of sensors of low gain, and bias comes with it: `blind-gain` starts from here and does better
    there.

    Args:
        a: A (p, m, n).
        y: (p, m).
        method: "ls" or "spectral", which noise harms more.
        basis: B (m, q), where 1/d = B h for some h.

    Returns:
        d of mean 1, as only products of d and x are seen, and x; `converged` whether all gains came out positive, as
        they are meant to be; `error` is |diag(d) A x - y| / |y|.

    Raises:
        Refused: shapes do not go together, there are too few measurements, a sensor measured nothing but zeros, or a
            gain is infinite.
    """
    held, seen, scale_a, scale_y = calibration_data(a, y)
    subspace = None if basis is None else dense(basis, "the basis")
    if method not in get_args(Method):
        raise Refused(f"method={method!r}: {' or '.join(get_args(Method))}")
    m = seen.shape[1]
    if subspace is not None and (
        len(subspace) != m or np.linalg.matrix_rank(subspace) < subspace.shape[1] or not subspace.any()
    ):
        raise Refused(f"a basis of {subspace.shape} for {m} sensors: ({m}, q) of independent columns is needed")
    s, x = (inverse_gains if method == "ls" else least_singular)(held, seen, subspace)
    if not (np.abs(s) > 0).all() or not np.isfinite(s).all():
        raise Refused(f"1/d is {s[np.argmin(np.abs(s))]} at sensor {int(np.argmin(np.abs(s)))}: its gain is infinite")
    d, x = unit_mean(1 / s, x)
    error = float(np.linalg.norm(d * (held @ x) - seen) / np.linalg.norm(seen))
    negative = int((d <= 0).sum())
    message = f"|diag(d) A x - y| is {error:.1e} of |y|"
    message += f"; {negative} gains of {m} are not positive: more measurements, or blind-gain" if negative else ""
    value = Calibration(back(d, y), back(x / scale_a * scale_y, y))
    return Solution(value, not negative, 1, (error,), message, error=error)
