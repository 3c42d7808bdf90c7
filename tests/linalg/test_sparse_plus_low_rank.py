"""Products and entries against the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.linalg import sparse_plus_low_rank as module
from eckart.linalg.sparse_plus_low_rank import SparsePlusLowRank, entries_of


def test_products_and_entries_are_those_of_the_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    s = sparse.random_array((9, 6), density=0.3, rng=rng).tocsr()
    a, b = rng.standard_normal((9, 2)), rng.standard_normal((6, 2))
    whole = s.toarray() + a @ b.T
    matrix = SparsePlusLowRank(s, a, b)
    assert matrix.shape == (9, 6)
    np.testing.assert_allclose(matrix @ np.eye(6), whole, atol=1e-12)
    np.testing.assert_allclose(matrix.T @ np.eye(9), whole.T, atol=1e-12)
    monkeypatch.setattr(module, "AT_ONCE", 10)
    row, column = rng.integers(0, 9, 50), rng.integers(0, 6, 50)
    np.testing.assert_allclose(entries_of(a, b, row, column), (a @ b.T)[row, column], atol=1e-12)
