"""Products of sparse matrices, of which only some entries are wanted, by blocks of rows of equal work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import Dense, rows
from eckart.errors import Refused

_BLOCK = 1 << 22
"""Multiply-adds of a block, where a mask or `top` lets a block be forgotten: 100 MB at most."""


def row_flops(a: sparse.csr_array, b: sparse.csr_array) -> Dense:
    """Multiply-adds of each row of A B: the sum over its entries A_ik of the entries of row k of B."""
    found: Dense = sparse.csr_array((np.ones(a.nnz), a.indices, a.indptr), shape=a.shape) @ np.diff(b.indptr)
    return found


def matmul_sparse(a: Any, b: Any, *, mask: Any = None, top: int | None = None, threads: int = 1) -> sparse.csr_array:
    """A B, row by row (Gustavson 1978), with the entries of a pattern only, or the largest few of each row.

    Rows are cut into blocks of equal multiply-adds, which threads share out; SciPy's product lets go of the interpreter
    meanwhile. With a mask or `top` never more than a block of the whole product is held.

    Args:
        a: A (m, k), sparse or dense.
        b: B (k, n).
        mask: (m, n), sparse: only its places are kept.
        top: entries of each row that are kept, the largest by magnitude; the first of those that tie.
        threads: at once.

    Returns:
        (m, n) in compressed rows, columns ascending.
    """
    left, right = (sparse.csr_array(rows(x, name)) for x, name in ((a, "A"), (b, "B")))
    if left.shape[1] != right.shape[0]:
        raise Refused(f"shapes {left.shape} and {right.shape} do not multiply")
    shape = left.shape[0], right.shape[1]
    pattern = None if mask is None else sparse.csr_array(mask, dtype=bool)
    if pattern is not None and pattern.shape != shape:
        raise Refused(f"a mask of shape {pattern.shape} is not for a product of shape {shape}")
    if threads < 1 or (top is not None and top < 1):
        raise Refused(f"threads={threads} and top={top} are at least 1")
    work = np.concatenate([[0.0], np.cumsum(row_flops(left, right))])
    parts = threads if pattern is None and top is None else max(threads, int(np.ceil(work[-1] / _BLOCK)))
    cuts = np.unique(np.searchsorted(work, np.linspace(0, work[-1], parts + 1)[1:-1]))
    bounds = [0, *(int(cut) for cut in cuts if 0 < cut < shape[0]), shape[0]]

    def block(start: int, end: int) -> sparse.csr_array:
        c = sparse.csr_array(left[start:end] @ right)
        if pattern is not None:
            c = sparse.csr_array(c.multiply(pattern[start:end]))
        c.sort_indices()
        return c if top is None else largest_of_rows(c, top)

    if threads == 1 or len(bounds) == 2:
        found = [block(start, end) for start, end in pairwise(bounds)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(block, bounds[:-1], bounds[1:]))
    return found[0] if len(found) == 1 else sparse.csr_array(sparse.vstack(found, format="csr"))


def largest_of_rows(c: sparse.csr_array, top: int) -> sparse.csr_array:
    """The `top` entries of each row that are largest by magnitude, columns ascending."""
    count, size = np.diff(c.indptr), np.abs(c.data)
    least = np.full(len(count), -1.0)
    longer = np.flatnonzero(count > top)
    width = 1 << np.ceil(np.log2(count[longer])).astype(np.int64)
    for each in np.unique(width):
        rows_of = longer[width == each]
        inside = np.arange(each) < count[rows_of, None]
        padded = np.full(inside.shape, -1.0)
        padded[inside] = size[(c.indptr[rows_of, None] + np.arange(each))[inside]]
        least[rows_of] = np.partition(padded, each - top, axis=1)[:, each - top]
    bar = np.repeat(least, count)
    above, tied = size > bar, size == bar
    room = top - np.diff(_sums(above)[c.indptr])
    rank = _sums(tied)[:-1] - np.repeat(_sums(tied)[c.indptr[:-1]], count)
    kept = above | (tied & (rank < np.repeat(room, count)))
    return sparse.csr_array((c.data[kept], c.indices[kept], _sums(kept)[c.indptr]), shape=c.shape)


def _sums(x: Dense) -> Dense:
    """Of the first 0, 1, ... entries."""
    return np.concatenate([[0], np.cumsum(x)])
