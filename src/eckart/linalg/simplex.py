"""Quadratics on the simplex or the positive orthant, many at once, and the corners of a cloud of points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import qr

from eckart.arrays import Dense
from eckart.errors import Refused


def on_simplex(x: Dense) -> Dense:
    """The nearest point of {a >= 0, sum a = 1} to each row of x (n, k): max(x - t, 0), t by sorting (Held 1974)."""
    ordered = -np.sort(-x, axis=1)
    excess = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, x.shape[1] + 1)
    last = np.count_nonzero(ordered > excess, axis=1) - 1
    found: Dense = np.maximum(x - excess[np.arange(len(x)), last][:, None], 0.0)
    return found


def positive(x: Dense) -> Dense:
    """The nearest point without negative entries."""
    found: Dense = np.maximum(x, 0.0)
    return found


def quadratic_programs(
    gram: Dense,
    linear: Dense,
    project: Callable[[Dense], Dense],
    start: Dense,
    *,
    tolerance: float = 1e-8,
    max_iter: int = 1000,
) -> Dense:
    """argmin of a G a^T / 2 - a b^T over a convex set, for each row b: accelerated projected gradients.

    Nesterov's steps of 1 / |G|, started anew wherever one turns against the last (O'Donoghue and Candès 2015). A row is
    done when it moves by less than `tolerance` of its size.

    Args:
        gram: G (k, k), positive semi-definite.
        linear: B (n, k).
        project: of rows onto the set.
        start: (n, k) in the set.
        tolerance: of a row's largest move by its largest entry.
        max_iter: steps at most.

    Returns:
        (n, k).
    """
    norm = float(np.linalg.norm(gram, 2))
    if norm == 0:
        return start
    x = start.copy()
    going = np.arange(len(x))
    held, ahead, momentum, b = x, x, np.ones(len(x)), linear
    for _ in range(max_iter):
        moved = project(ahead - (ahead @ gram - b) / norm)
        turned = ((ahead - moved) * (moved - held)).sum(axis=1) > 0
        momentum = np.where(turned, 1.0, momentum)
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + ((momentum - 1) / after)[:, None] * (moved - held)
        size = np.abs(moved).max(axis=1, initial=0)
        moving = np.abs(moved - held).max(axis=1, initial=0) > tolerance * size
        x[going] = moved
        if not moving.any():
            break
        going, held, ahead, momentum, b = going[moving], moved[moving], ahead[moving], after[moving], b[moving]
    return x


def sweeps(gram: Dense, linear: Dense, start: Dense, most: int, less: float) -> Dense:
    """Exact minimisation of a G a^T / 2 - a b^T over one coordinate a_c >= 0 after the other, for all rows at once.

    Args:
        gram: (k, k), or (k, k, n) of each row.
        linear: b (k, n).
        start: (k, n), not negative.
        most: sweeps over the coordinates at most.
        less: ends where a sweep moves by less than this of what the first one did.

    Returns:
        a (k, n). A coordinate whose G_cc is 0 stays where it is.
    """
    a, first = start.copy(), np.inf
    for _ in range(most):
        moved = 0.0
        for c, (row, diagonal) in enumerate(zip(gram, np.einsum("cc...->c...", gram), strict=True)):
            slope = linear[c] - (row @ a if gram.ndim == 2 else np.einsum("kn,kn->n", row, a))
            step = np.divide(slope, diagonal, out=np.zeros_like(slope), where=diagonal > 0)
            step = np.maximum(step, -a[c])
            a[c] += step
            moved += float(step @ step)
        if first == np.inf:
            first = moved
        if moved <= less**2 * first:
            break
    return a


def corners(x: Dense, count: int) -> Dense:
    """Rows of x (n, p) that stand at the corners of their cloud: each is farthest from the span of those before.

    Successive projections, which is QR with pivoting, after a projection on `count` principal directions that takes
    noise away; vertex component analysis (Nascimento and Dias 2005) does the same with a random direction of the
    complement instead of the farthest point, so that it has to be run often.

    Returns:
        Indices (count,) of rows.

    Raises:
        Refused: there are fewer rows than corners.
    """
    if not 1 <= count <= len(x):
        raise Refused(f"{count} corners are asked for, of n_samples = {len(x)} points: at least one, and no more")
    directions = np.linalg.svd(x.T @ x, hermitian=True)[0][:, :count]
    found: Dense = qr((x @ directions).T, mode="r", pivoting=True)[1][:count]
    return found
