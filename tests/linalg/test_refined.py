"""Conjugate gradients by rough products, judged by exact ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.linalg.refined import refined

ONE = torch.eye(40, dtype=torch.float64)


def problem(off: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    a = (q * np.geomspace(1e-3, 10, 40)) @ q.T
    e = rng.standard_normal((40, 40))
    e = (e + e.T) / np.linalg.norm(e + e.T, 2)
    return tuple(torch.from_numpy(each) for each in (a, a + off * e, rng.standard_normal((40, 3))))  # type: ignore[return-value]


def counted(matrix: torch.Tensor, calls: list[int]) -> Any:
    def times(v: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return matrix @ v

    return times


@pytest.mark.parametrize(("off", "most"), [(1e-3, 6), (0.09, 200)])
def test_residuals_are_those_of_the_exact_matrix(off: float, most: int) -> None:
    a, rough, b = problem(off)
    b[:, 1] *= 1e-8
    b[:, 2] = 0
    exact, near = [0], [0]
    found = refined(counted(a, exact), counted(rough, near), b, shift=0.1, tolerance=1e-11)
    truth = torch.linalg.solve(a + 0.1 * ONE, b)
    assert ((found.value - truth).norm(dim=0) <= 1e-9 * truth.norm(dim=0)).all()
    left = (b - (a + 0.1 * ONE) @ found.value).norm(dim=0)[:2] / b.norm(dim=0)[:2]
    np.testing.assert_allclose(found.error, [*left, 0.0], rtol=1e-2, atol=1e-13)
    assert found.converged
    assert exact[0] <= most
    assert exact[0] + near[0] == found.calls


def test_a_matrix_that_is_not_near_costs_a_round_and_nothing_else() -> None:
    a, _, b = problem(0.0)
    found = refined(a, 5 * ONE, b[:, 0], shift=0.1, tolerance=1e-9)
    assert found.converged
    torch.testing.assert_close(found.value, torch.linalg.solve(a + 0.1 * ONE, b[:, 0]), rtol=1e-6, atol=1e-8)


def test_too_few_steps_are_said_and_what_is_no_system_is_refused() -> None:
    a, rough, b = problem(1e-3)
    found = refined(a, rough, b, shift=0.1, tolerance=1e-9, iterations=5)
    assert not found.converged
    assert found.iterations == 5
    assert "above 1e-09" in found.message
    assert refined(a, rough, torch.zeros(40), shift=0.1).iterations == 0
    for wrong in (b[None], b * np.nan):
        with pytest.raises(Refused):
            refined(a, rough, wrong)
