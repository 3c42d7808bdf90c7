"""Ridge regressions in batches against one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.linalg import batched_ridge as module
from eckart.linalg.batched_ridge import Ragged, batched_ridge


def problem() -> tuple[Ragged, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pattern, values, design, penalties, and the solutions one by one; rows of 0 to 40 entries, 7 unknowns."""
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((60, 40)) < np.linspace(0, 1, 60)[:, None], rng.standard_normal((60, 40)), 0.0)
    x = sparse.csr_array(dense)
    design, penalty = rng.standard_normal((40, 7)), rng.uniform(0.1, 2, 60)
    expected = np.zeros((60, 7))
    for i, row in enumerate(dense):
        d, v = design[row != 0], row[row != 0]
        # min |v - D a|^2 + p |a|^2 as least squares with rows sqrt(p) I below.
        stacked = np.vstack([d, np.sqrt(penalty[i]) * np.eye(7)])
        expected[i] = np.linalg.lstsq(stacked, np.r_[v, np.zeros(7)], rcond=None)[0]
    return Ragged(x.indptr, x.indices), x.data, design, penalty, expected


@pytest.mark.parametrize(("solver", "steps"), [("cholesky", 0), ("cg", 12)])
def test_all_at_once_is_one_by_one(solver: module.Solver, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, values, design, penalty, expected = problem()
    found = batched_ridge(pattern, values, design, penalty, solver=solver, steps=steps)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    monkeypatch.setattr(module, "AT_ONCE", 300)
    parts = batched_ridge(pattern, values, design, penalty, solver=solver, steps=steps)
    np.testing.assert_allclose(parts, expected, atol=1e-8)


def test_conjugate_gradients_go_on_from_their_start() -> None:
    pattern, values, design, penalty, expected = problem()
    near = expected + 1e-3 * np.random.default_rng(1).standard_normal(expected.shape)
    errors = [
        np.abs(batched_ridge(pattern, values, design, penalty, solver="cg", start=start, steps=2) - expected).max()
        for start in (None, near, expected)
    ]
    assert errors[1] < 1e-2 * errors[0]
    assert errors[2] < 1e-12
