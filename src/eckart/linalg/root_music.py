"""Frequencies of a few complex exponentials from a covariance, and how many there are."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense


def forward_backward(covariance: Dense) -> Dense:
    """(R + J conj(R) J) / 2, J turning the order round: what stays of a covariance whose signals are exponentials."""
    turned: Dense = (covariance + covariance[::-1, ::-1].conj()) / 2
    return turned


def mdl_order(eigenvalues: Dense, snapshots: int) -> int:
    """The number of signals by the minimum description length, of a forward-backward averaged covariance.

    With N snapshots, of d eigenvalues l_1 >= ..., it minimises over n, the parameters being those of the real symmetric
    matrix that such a covariance is similar to,

        N ((d - n) log mean(l_i, i > n) - sum(log l_i, i > n)) + n (2d - n + 1) log(N) / 4.

    Args:
        eigenvalues: (d,), in any order; what lies below rounding of the largest counts as that.
        snapshots: N.
    """
    values = np.sort(eigenvalues)[::-1]
    d = len(values)
    if not values[0] > 0:
        return 0
    values = np.maximum(values, values[0] * d * np.finfo(float).eps)
    n = np.arange(d)
    logs = np.cumsum(np.log(values)[::-1])[::-1]
    means = np.cumsum(values[::-1])[::-1] / (d - n)
    lengths = snapshots * ((d - n) * np.log(means) - logs) + n * (2 * d - n + 1) * np.log(snapshots) / 4
    return int(np.argmin(lengths))


def root_music(covariance: Dense, count: int) -> Dense:
    """Angular frequencies of `count` signals exp(i w j), j = 0..d-1, in (-pi, pi].

    The roots nearest the unit circle, from within, of sum_j c_j z^j, where c_j is the sum of the j-th diagonal of the
    projection on the noise (Barabell 1983).

    Args:
        covariance: (d, d), Hermitian.
        count: at least 0, less than d.
    """
    d = len(covariance)
    noise = np.linalg.eigh(covariance)[1][:, : d - count]
    projection = noise @ noise.conj().T
    # z^H P z on the circle is a polynomial in z from -(d-1) to d-1; roots come in pairs z, 1/conj(z).
    roots = np.roots([np.trace(projection, offset=j) for j in range(d - 1, -d, -1)])
    # Each pair has one root within; rounding may leave both of a pair on the circle outside, or inside.
    inside = roots[np.argsort(np.abs(roots))][: d - 1]
    chosen = inside[np.argsort(-np.abs(inside))][:count]
    found: Dense = np.sort(np.angle(chosen))
    return found
