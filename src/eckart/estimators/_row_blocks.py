"""Alternating ridge regressions on a table that comes in blocks of rows, once a sweep, and is never held."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import sparse

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.linalg.batched_ridge import Ragged, Solver, batched_ridge
from eckart.linalg.solution import Solution
from eckart.linalg.sparse_plus_low_rank import entries_of

Blocks = Callable[[], Iterator[sparse.csr_array]]
"""Gives the blocks of rows once more each time it is called: what is observed of them, finite."""
Halves = tuple[Dense, Dense, float, float]
"""[p_i, b_i] (rows, k + 1), [q_j, c_j] (columns, k + 1), the mean and the standard deviation of what is observed."""


def ridge_by_blocks(
    blocks: Blocks,
    start: Callable[[int], Dense],
    penalty: float,
    *,
    solver: Solver,
    steps: int,
    tolerance: float,
    max_iter: int,
) -> Solution[Halves]:
    """The sweeps of `alternating_ridge`, each of one pass: rows by the columns, and sums for the columns by the rows.

    A block's rows are regressed on the columns' factors, and at once add to the normal equations of all columns, which
    are solved where the pass ends: (k + 1)^2 numbers a column beside the factors and one block.

    Args:
        blocks: of the table.
        start: [p, 0] to begin with, (rows, k + 1), by the number of rows.
        penalty: lambda.
        solver: of the rows; the columns' normal equations are there, and are solved as they are.
        steps: of "cg".
        tolerance: of the fall of the objective in a sweep, by itself.
        max_iter: sweeps at most.
    """
    unit, mean, spread, count, sizes, width = _moments(blocks)
    if not count:
        raise Refused(f"none of the {sum(sizes)} x {width} entries of X is observed: all are NaN, or none is stored")
    places = np.cumsum([0, *sizes])
    p = start(int(places[-1]))
    k = p.shape[1]
    q, best, history, fall = np.zeros((width, k)), (p, np.zeros((width, k))), [1.0], np.inf
    for sweep in range(max_iter + 1):
        normal, right, counts = np.zeros((width, k, k)), np.zeros((width, k)), np.zeros(width)
        reached, p = 0.0, p.copy()
        for at, x in zip(places, blocks(), strict=False):
            z, own = (x.data / unit - mean) / spread, slice(at, at + x.shape[0])
            by_rows = Ragged(x.indptr, x.indices)
            if sweep:
                design, ridge = _beside_ones(q), penalty * by_rows.counts
                target = z - q[x.indices, -1]
                p[own] = batched_ridge(by_rows, target, design, ridge, solver=solver, start=p[own], steps=steps)
                row = np.repeat(np.arange(x.shape[0]), by_rows.counts)
                part = p[own]
                rest = target - entries_of(part[:, :-1], q[:, :-1], row, x.indices) - part[row, -1]
                reached += float(np.square(rest).sum() + ridge @ np.square(part).sum(axis=1))
            numbered = sparse.csr_array((np.arange(x.nnz), x.indices, x.indptr), x.shape).tocsc()
            by_columns, part = Ragged(numbered.indptr, numbered.indices), p[own]
            target = z[numbered.data] - part[numbered.indices, -1]
            for members, v, d in by_columns.gathered(target, _beside_ones(part)):
                dt = d.transpose(0, 2, 1)
                normal[members] += dt @ d
                right[members] += (dt @ v[..., None])[..., 0]
            counts += by_columns.counts
        if sweep:
            reached = (reached + penalty * float(counts @ np.square(q).sum(axis=1))) / count
            fall = (history[-1] - reached) / max(history[-1], np.finfo(float).tiny)
            if reached <= min(history):
                best = p, q
            history.append(reached)
            if fall <= tolerance:
                break
        held = np.where(counts > 0, penalty * counts, 1.0)
        normal[:, np.arange(k), np.arange(k)] += held[:, None]
        lower = torch.linalg.cholesky(torch.from_numpy(normal))
        q = torch.cholesky_solve(torch.from_numpy(right)[..., None], lower)[..., 0].numpy()
    message = f"the objective fell by {fall:.1e} of itself in the last of {len(history) - 1} sweeps"
    value = (*best, mean * unit, spread * unit)
    return Solution(value, fall <= tolerance, len(history) - 1, tuple(history), message)


def _moments(blocks: Blocks) -> tuple[float, float, float, int, list[int], int]:
    """A power of two, the mean and deviation (1 where it is 0) by it, entries, rows of each block, columns."""
    unit, total, mean, square, sizes, width = 0.0, 0, 0.0, 0.0, [], 0
    for x in blocks():
        sizes.append(x.shape[0])
        width = x.shape[1]
        largest = float(np.abs(x.data).max(initial=0.0))
        if not largest:
            more, part = x.nnz, np.zeros(1)
        else:
            power = float(np.ldexp(1.0, int(np.frexp(largest)[1]) - 1))
            if power > unit:
                share = unit / power
                unit, mean, square = power, mean * share, square * share**2
            more, part = x.nnz, x.data / unit
        if not more:
            continue
        own = float(part.mean())
        apart = own - mean
        square += (float(np.square(part - own).sum()) if largest else 0.0) + total * more / (total + more) * apart**2
        mean += more / (total + more) * apart
        total += more
    spread = float(np.sqrt(square / total)) if total else 1.0
    spread = spread if spread > 16 * np.finfo(float).eps * abs(mean) else 1.0
    return unit or 1.0, mean, spread, total, sizes, width


def _beside_ones(factors: Dense) -> Dense:
    return np.hstack([factors[:, :-1], np.ones((len(factors), 1))])
