"""Columns and rows against the matrix that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.linalg.cur import cur, cur_core
from support import hard


def test_it_is_exact_at_the_rank_and_near_the_best_below() -> None:
    a = (hard.normal(60, 5) @ hard.normal(5, 30, seed=1)).numpy()
    for given in (a, sparse.csr_array(a)):
        found = cur(given, 5, generator=0)
        np.testing.assert_allclose(found.of(given), a, atol=1e-9)
    b = hard.with_spectrum(60, 30, hard.decaying(30, 6)).numpy()
    best = np.linalg.norm(np.linalg.svd(b, compute_uv=False)[8:])
    assert np.linalg.norm(cur(b, 8, generator=0).of(b) - b) < 5 * best
    assert not cur(np.zeros((4, 3)), 2).of(np.zeros((4, 3))).any()
    with pytest.raises(Refused, match="rank=4"):
        cur(np.ones((4, 3)), 4)


def test_cores_are_regularized_inverses() -> None:
    w = hard.with_spectrum(6, 4, hard.decaying(4, 3)).numpy()
    np.testing.assert_allclose(cur_core(w), np.linalg.pinv(w), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(cur_core(w, rcond=0.05), np.linalg.pinv(w, rcond=0.05), atol=1e-9)
    ridge = np.linalg.solve(w.T @ w + 0.01 * np.eye(4), w.T)
    np.testing.assert_allclose(cur_core(w, ridge=0.1), ridge, atol=1e-9)
    assert not cur_core(np.zeros((2, 3))).any()
    with pytest.raises(Refused, match="give one"):
        cur_core(w, rcond=0.1, ridge=0.1)
