"""Tensors between vectors that go with entries, not with a grid: products of rows, and sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from eckart.arrays import Dense

AT_ONCE = 2**20
"""Numbers of products of rows that stand in memory together."""


def row_products(rows: Sequence[Dense]) -> Dense:
    """The Kronecker products of like rows, (n, q_1 q_2 ...) of (n, q_k), the last fastest."""
    found = np.ones((len(rows[0]), 1)) if rows else np.ones((1, 1))
    for each in rows:
        found = (found[:, :, None] * each[:, None, :]).reshape(len(each), -1)
    return found


def contracted(core: Dense, rows: Sequence[Dense], mode: int | None = None) -> Dense:
    """core x_j rows_j[n] over all modes j but one, for each n: (n, q_mode), or (n, 1) over all.

    Args:
        core: (q_1, ..., q_K).
        rows: (n, q_k) of each mode.
        mode: which is left.
    """
    flat = core.reshape(1, -1) if mode is None else np.moveaxis(core, mode, 0).reshape(core.shape[mode], -1)
    others = [each for k, each in enumerate(rows) if k != mode]
    n, step = len(rows[0]), max(1, AT_ONCE // flat.shape[1])
    if not others:
        return np.broadcast_to(flat[:, 0], (n, len(flat)))
    return np.concatenate(
        [row_products([each[at : at + step] for each in others]) @ flat.T for at in range(0, n, step)]
    )


def summed(rows: Sequence[Dense], weights: Dense | None = None) -> Dense:
    """The sum over n of the Kronecker products of rows, weighted: (q_1 q_2 ...)."""
    size = prod(each.shape[1] for each in rows)
    found, step = np.zeros((size // rows[-1].shape[1], rows[-1].shape[1])), max(1, AT_ONCE * rows[-1].shape[1] // size)
    for at in range(0, len(rows[0]), step):
        part = [each[at : at + step] for each in rows]
        last = part[-1] if weights is None else part[-1] * weights[at : at + step, None]
        found += row_products([np.ones((len(last), 1)), *part[:-1]]).T @ last
    return found.ravel()


def second_moments(mean: Dense, covariance: Dense) -> Dense:
    """E u u^T as rows (n, r r)."""
    found: Dense = (mean[:, :, None] * mean[:, None, :] + covariance).reshape(len(mean), -1)
    return found


def paired(square: Dense, shape: tuple[int, ...]) -> Dense:
    """(R, R) with both sides in modes as (R_1 R_1, R_2 R_2, ...): each mode beside its twin."""
    k = len(shape)
    order = [side * k + mode for mode in range(k) for side in (0, 1)]
    return square.reshape(*shape, *shape).transpose(order).reshape([r * r for r in shape])


def unpaired(pairs: Dense, shape: tuple[int, ...]) -> Dense:
    """The inverse of `paired`."""
    k = len(shape)
    split = pairs.reshape([r for each in shape for r in (each, each)])
    return split.transpose([*range(0, 2 * k, 2), *range(1, 2 * k, 2)]).reshape(prod(shape), -1)
