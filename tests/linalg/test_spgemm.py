"""Products of sparse matrices against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from eckart.errors import Refused
from eckart.linalg.spgemm import largest_of_rows, matmul_sparse, row_flops


def drawn(m: int, n: int, seed: int) -> sparse.csr_array:
    return sparse.csr_array(sparse.random_array((m, n), density=0.2, rng=np.random.default_rng(seed)))


@pytest.mark.parametrize("threads", [1, 3])
def test_whole_masked_and_largest(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eckart.linalg.spgemm._BLOCK", 40)
    a, b, mask = drawn(23, 17, 0), drawn(17, 19, 1), drawn(23, 19, 2)
    masked = matmul_sparse(a, b.tocoo(), mask=mask, threads=threads)
    whole = a.toarray() @ b.toarray()
    np.testing.assert_allclose(matmul_sparse(a, b, threads=threads).toarray(), whole)
    np.testing.assert_allclose(masked.toarray(), whole * (mask.toarray() != 0))
    top = matmul_sparse(a, -b, top=3, threads=threads)
    order = np.argsort(-np.abs(whole), axis=1, kind="stable")[:, :3]
    expected = np.zeros_like(whole)
    np.put_along_axis(expected, order, -np.take_along_axis(whole, order, 1), 1)
    np.testing.assert_allclose(top.toarray(), expected)
    assert top.has_sorted_indices
    assert row_flops(a, b).sum() == sum(np.count_nonzero(b.toarray()[k]) for k in a.indices)


@pytest.mark.parametrize("top", [1, 2, 5, 64])
def test_the_first_of_those_that_tie_are_kept(top: int) -> None:
    rng = np.random.default_rng(0)
    c = sparse.csr_array(sparse.random_array((60, 40), density=0.3, rng=rng, data_sampler=lambda size: np.ones(size)))
    c.data *= rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0], c.nnz)
    c.sort_indices()
    found = largest_of_rows(c, top)
    for i in range(60):
        values, at = c.data[c.indptr[i] : c.indptr[i + 1]], c.indices[c.indptr[i] : c.indptr[i + 1]]
        kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:top])
        np.testing.assert_array_equal(found.indices[found.indptr[i] : found.indptr[i + 1]], at[kept])
        np.testing.assert_array_equal(found.data[found.indptr[i] : found.indptr[i + 1]], values[kept])


def test_ends() -> None:
    empty = sparse.csr_array((3, 4))
    assert matmul_sparse(empty, sparse.csr_array((4, 2)), top=1, threads=2).shape == (3, 2)
    for bad in (lambda: matmul_sparse(empty, empty), lambda: matmul_sparse(empty, empty.T, top=0)):
        with pytest.raises(Refused):
            bad()
    with pytest.raises(Refused, match="mask"):
        matmul_sparse(empty, empty.T, mask=empty)
    with pytest.raises(Refused, match="A is a tensor of layout"):
        matmul_sparse(torch.eye(3).to_sparse(), np.eye(3))
