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
    return sparse.csr_array(sparse.vstack(found, format="csr")) if found else sparse.csr_array(shape)


def largest_of_rows(c: sparse.csr_array, top: int) -> sparse.csr_array:
    """The `top` entries of each row that are largest by magnitude, columns ascending."""
    count = np.diff(c.indptr)
    row = np.repeat(np.arange(c.shape[0]), count)
    order = np.lexsort((c.indices, -np.abs(c.data), row))
    rank = np.arange(c.nnz) - np.repeat(c.indptr[:-1], count)
    kept = np.sort(order[rank < top])
    pointers = np.concatenate([[0], np.cumsum(np.minimum(count, top))])
    return sparse.csr_array((c.data[kept], c.indices[kept], pointers), shape=c.shape)
