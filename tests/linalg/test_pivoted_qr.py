"""Pivoted factorizations against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.pivoted_qr import cqrrpt, strong_rrqr
from support import hard


def tall(name: str) -> np.ndarray:
    a = hard.weights()[name].double().numpy()
    return a if a.shape[0] >= a.shape[1] else a.T


NAMES = sorted(set(hard.weights()) - {"graded-entries"})


@pytest.mark.parametrize("rows", [None, 14])
def test_a_sketch_gives_an_orthonormal_factor_whatever_the_condition(rows: int | None) -> None:
    for name in NAMES:
        a = tall(name)
        if rows is not None and (rows >= len(a) or rows < a.shape[1]):
            continue
        found, size = cqrrpt(a, rows=rows, generator=0), np.abs(a).max() or 1.0
        assert np.abs(found.q.T @ found.q - np.eye(found.rank)).max(initial=0) < 1e-13, name
        assert np.abs(found.q @ (found.r / size) - a[:, found.order] / size).max() < 1e-12, name
        assert not np.tril(found.r, -1).any(), name
        assert sorted(found.order.tolist()) == list(range(a.shape[1]))


def test_the_rank_of_a_large_matrix_and_its_spectrum() -> None:
    u, v = np.linalg.qr(hard.normal(400, 12).numpy())[0], hard.orthogonal(12).numpy()
    a = u * np.logspace(0, -15, 12) @ v
    found = cqrrpt(a, generator=1)
    assert np.abs(found.q.T @ found.q - np.eye(found.rank)).max() < 1e-13
    assert np.linalg.norm(found.q @ found.r - a[:, found.order]) < 1e-12
    low = u[:, :4] @ hard.normal(4, 12).numpy()
    assert cqrrpt(low, generator=1).rank == 4
    with pytest.raises(Refused, match="tall"):
        cqrrpt(a.T)


def test_strong_pivots_bound_the_coordinates_of_the_rest() -> None:
    for name in ("kahan", "general", "hilbert", "graded-spectrum", "graded-columns", "strided"):
        a = hard.weights()[name].double().numpy()
        for k in (1, 3, 7):
            found = strong_rrqr(a, k, bound=1.5)
            inner = np.linalg.solve(found.r[:, :k], found.r[:, k:])
            assert np.abs(inner).max() <= 1.5 + 1e-9, (name, k)
            s = np.linalg.svd(a, compute_uv=False)
            left = a[:, found.order] - found.q @ found.r
            growth = (1 + 1.5**2 * k * (a.shape[1] - k)) ** 0.5
            assert np.linalg.norm(left, 2) <= s[k] * growth * (1 + 1e-6) + 1e-12, (name, k)
            assert np.linalg.svd(found.r[:, :k], compute_uv=False)[-1] >= s[k - 1] / growth * (1 - 1e-6) - 1e-12
    with pytest.raises(Refused, match="numerical rank"):
        strong_rrqr(np.ones((3, 3)), 2)
    with pytest.raises(Refused, match="rank=9"):
        strong_rrqr(np.ones((3, 3)), 9)
