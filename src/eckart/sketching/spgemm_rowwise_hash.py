"""The product of two sparse matrices, row by row, merged in hash tables."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import sparse

from eckart.arrays import Array, rows
from eckart.errors import Refused
from eckart.linalg.spgemm import matmul_sparse, row_flops
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch

_FACTOR = 2654435761
"""Knuth's multiplier for hashing in 32 bits."""


def hashed_rows(a: sparse.csr_array, b: sparse.csr_array) -> tuple[sparse.csr_array, int]:
    """A B by a table of columns for each row, and how many slots were looked at.

    A row whose products are f in number has a table of the first power of two that is at least 2 min(f, columns). A
    product goes to the first slot from its column's hash on that is free or has its column already, where it is added.
    All products of all rows look for their slots at once.
    """
    n = b.shape[1]
    flops = row_flops(a, b).astype(np.int64)
    size = np.maximum(1, 2 * np.minimum(flops, n))
    size = 1 << np.ceil(np.log2(size)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(size)])
    counts = np.diff(b.indptr)[a.indices]
    total = int(counts.sum())
    inside = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.repeat(b.indptr[a.indices], counts) + inside
    row = np.repeat(np.repeat(np.arange(a.shape[0]), np.diff(a.indptr)), counts)
    column, value = b.indices[place].astype(np.int64), np.repeat(a.data, counts) * b.data[place]
    keys, sums = np.full(first[-1], -1, np.int64), np.zeros(first[-1])
    probe, waiting, looked = (column * _FACTOR % (1 << 32)) % size[row], np.arange(total), 0
    while len(waiting):
        slot = first[row[waiting]] + probe[waiting]
        looked += len(waiting)
        free = keys[slot] < 0
        # Of those that meet at a free slot, one writes its column; the others see it there, or go on.
        keys[slot[free]] = column[waiting[free]]
        mine = keys[slot] == column[waiting]
        np.add.at(sums, slot[mine], value[waiting[mine]])
        waiting = waiting[~mine]
        probe[waiting] = (probe[waiting] + 1) % size[row[waiting]]
    used = np.flatnonzero(keys >= 0)
    of_row = np.searchsorted(first, used, side="right") - 1
    found = sparse.csr_array((sums[used], (of_row, keys[used])), shape=(a.shape[0], n))
    found.sort_indices()
    return found, looked


def _two_sparse(generator: np.random.Generator) -> dict[str, Any]:
    """Sparse matrices of 30 x 20 and 20 x 25."""
    return {"a": generator.random((30, 20)) * (generator.random((30, 20)) < 0.2),
            "b": generator.random((20, 25)) * (generator.random((20, 25)) < 0.2)}  # fmt: skip


def _dense_product(rng: np.random.Generator) -> Planted:
    """It is the product, whatever merges it."""
    given = _two_sparse(rng) | {"accumulator": "hash"}
    return Planted(given, lambda found: np.abs(found.toarray() - given["a"] @ given["b"]).max(), 1e-12)


@sketch(
    "spgemm-rowwise-hash",
    paper="Shivdikar 2021 (SMASH), Northeastern University",
    gives="A B in compressed rows",
    error="rounding",
    problem=_two_sparse,
    limit=_dense_product,
    draws=False,
)
def sparse_product(
    a: Array, b: Array, *, accumulator: Literal["auto", "hash"] = "auto", threads: int = 1
) -> sparse.csr_array:
    """A B for sparse A and B, row by row, products of one row merged as they come.

    The paper merges them in hash tables, one for each row, in the fast memory of a chip that is simulated. "hash" does
    so and is there to be read; on a CPU SciPy's linked lists in a dense row, which "auto" takes with blocks of equal
    work for each thread, are six times as fast. `linalg.spgemm.matmul_sparse` keeps the largest of each row, or the
    entries of a pattern, where all of them would not fit into memory.

    Args:
        a: A (m, k), sparse or dense.
        b: B (k, n).
        accumulator: how products are merged.
        threads: for "auto".
    """
    left, right = (sparse.csr_array(rows(x, name)) for x, name in ((a, "A"), (b, "B")))
    if left.shape[1] != right.shape[0]:
        raise Refused(f"shapes {left.shape} and {right.shape} do not multiply")
    if accumulator == "hash":
        return hashed_rows(left, right)[0]
    if accumulator != "auto":
        raise Refused(f"unknown accumulator {accumulator!r}; there are auto and hash")
    return matmul_sparse(left, right, threads=threads)
