"""Products in hash tables against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.sketching.spgemm_rowwise_hash import hashed_rows, sparse_product


def test_both_ways_are_the_product() -> None:
    rng = np.random.default_rng(0)
    for m, k, n in ((40, 30, 35), (1, 5, 3), (6, 1, 2), (3, 3, 300)):
        a, b = ((rng.standard_normal(s)) * (rng.random(s) < 0.3) for s in ((m, k), (k, n)))
        for accumulator in ("auto", "hash"):
            found = sparse_product(sparse.csr_array(a), sparse.csc_array(b), accumulator=accumulator)
            np.testing.assert_allclose(found.toarray(), a @ b, atol=1e-12)
            assert found.has_sorted_indices


def test_tables_are_looked_at_about_once_for_each_product() -> None:
    a = sparse.csr_array(sparse.random_array((300, 300), density=0.02, rng=np.random.default_rng(0)))
    found, looked = hashed_rows(a, a)
    products = int(np.diff(a.indptr)[a.indices].sum())
    assert products <= looked < 2 * products
    assert found.nnz == (a @ a).nnz
    empty, none = hashed_rows(sparse.csr_array((3, 2)), sparse.csr_array((2, 4)))
    assert empty.shape == (3, 4)
    assert none == 0
    with pytest.raises(Refused, match="do not multiply"):
        sparse_product(np.ones((2, 3)), np.ones((2, 3)))
