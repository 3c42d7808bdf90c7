"""Ridge regressions by the thousand: one for each row of a sparse matrix, on the rows of one common design."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from eckart.arrays import Dense

AT_ONCE = 2**18
"""Numbers of the design that are gathered together, 2 MiB of them: they are read several times."""
PADDING = 1.25
"""Rows whose counts differ by no more than this are solved together, the shorter ones with zeros."""
Solver = Literal["cholesky", "cg"]


@dataclass(frozen=True)
class Ragged:
    """Which rows of a design each regression has: the pattern of a sparse matrix in compressed rows.

    Attributes:
        indptr: (m + 1,), where each row's indices start.
        indices: (nnz,), rows of the design.
    """

    indptr: Dense
    indices: Dense

    @cached_property
    def counts(self) -> Dense:
        """(m,)."""
        return np.diff(self.indptr)

    @cached_property
    def groups(self) -> list[tuple[Dense, int]]:
        """Rows of about the same count, and the largest count among them; rows without entries are in none."""
        order = np.argsort(self.counts, kind="stable")
        sizes = self.counts[order]
        found, start = [], int(np.searchsorted(sizes, 1))
        while start < len(order):
            stop = int(np.searchsorted(sizes, max(sizes[start] * PADDING, sizes[start] + 2), "right"))
            found.append((order[start:stop], int(sizes[stop - 1])))
            start = stop
        return found

    def gathered(self, values: Dense, design: Dense) -> Iterator[tuple[Dense, Dense, Dense]]:
        """Regressions (rows of the pattern, targets (g, c), designs (g, c, k)), zeros behind the shorter ones."""
        k = design.shape[1]
        for members, width in self.groups:
            step = max(1, AT_ONCE // (width * max(k, 1)))
            for start in range(0, len(members), step):
                rows = members[start : start + step]
                place = self.indptr[rows][:, None] + np.arange(width)
                inside = np.arange(width) < self.counts[rows][:, None]
                place = np.where(inside, place, 0)
                found = design[self.indices[place]]
                if not inside.all():
                    found *= inside[:, :, None]
                yield rows, values[place] * inside, found


def batched_ridge(
    pattern: Ragged,
    values: Dense,
    design: Dense,
    penalty: Dense,
    *,
    solver: Solver = "cholesky",
    start: Dense | None = None,
    steps: int = 3,
) -> Dense:
    """argmin over a_i of sum_j (v_ij - d_j^T a_i)^2 + penalty_i |a_i|^2, j over the entries of row i, for all rows i.

    Rows of about equal count are one batch. "cholesky" solves the normal equations, or where a row has fewer entries
    than unknowns a = D^T (D D^T + penalty I)^-1 v, in nnz k min(k, count); "cg" takes some steps of conjugate gradients
    from a start that is near, in nnz k each.

    Args:
        pattern: of the entries, m rows.
        values: v (nnz,), in the order of the pattern.
        design: d (n, k).
        penalty: (m,), positive.
        solver: one of the two.
        start: (m, k), of "cg"; zeros where it is None.
        steps: of "cg".

    Returns:
        a (m, k), zero in rows without entries.
    """
    found = np.zeros((len(pattern.counts), design.shape[1]))
    for rows, v, d in pattern.gathered(values, design):
        if solver == "cg":
            begin = found[rows] if start is None else start[rows]
            found[rows] = _conjugate_gradients(d, v, penalty[rows], begin, steps)
        else:
            found[rows] = _direct(d, v, penalty[rows])
    return found


def _direct(d: Dense, v: Dense, penalty: Dense) -> Dense:
    count, k = d.shape[1:]
    dt = d.transpose(0, 2, 1)
    gram, right = (d @ dt, v[..., None]) if count < k else (dt @ d, dt @ v[..., None])
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += penalty[:, None]
    factor = torch.linalg.cholesky(torch.from_numpy(gram))
    solved = torch.cholesky_solve(torch.from_numpy(right), factor).numpy()
    found: Dense = (dt @ solved if count < k else solved)[..., 0]
    return found


def _conjugate_gradients(d: Dense, v: Dense, penalty: Dense, x: Dense, steps: int) -> Dense:
    def normal(p: Dense) -> Dense:
        made: Dense = ((d @ p[..., None]).transpose(0, 2, 1) @ d)[:, 0] + penalty[:, None] * p
        return made

    rest = (v[:, None] @ d)[:, 0] - normal(x)
    direction, square = rest, np.square(rest).sum(1)
    for _ in range(steps):
        image = normal(direction)
        length = _share(square, (direction * image).sum(1))
        x = x + length * direction
        rest = rest - length * image
        before, square = square, np.square(rest).sum(1)
        direction = rest + _share(square, before) * direction
    return x


def _share(part: Dense, of: Dense) -> Dense:
    """part / of (g, 1), and 0 where there is nothing left to do."""
    found: Dense = np.divide(part, of, out=np.zeros_like(part), where=of > 0)[:, None]
    return found
