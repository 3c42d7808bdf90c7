"""Entropic transport against the conditions of its optimum, and against transport without entropy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import logsumexp

from eckart.errors import Refused
from eckart.sketching.sinkhorn_newton_sparse import _sparse_step, _whole_step, sinkhorn_newton


def clouds(n: int = 20, m: int = 14) -> np.ndarray:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, 2)), rng.standard_normal((m, 2)) + 0.5
    cost = np.square(x[:, None] - y).sum(-1)
    return cost / cost.max()


@pytest.mark.parametrize("method", ["newton", "sns", "sinkhorn"])
@pytest.mark.parametrize("reg", [0.5, 0.05, 0.005])
def test_the_plan_has_its_form_and_its_marginals(method: str, reg: float) -> None:
    cost = clouds()
    a, b = np.linspace(1, 2, 20), np.linspace(2, 1, 14)
    b *= a.sum() / b.sum()
    found = sinkhorn_newton(cost, a, b, reg=reg, method=method, iterations=20_000, tolerance=1e-8)
    plan = found.value.plan
    assert found.converged
    assert np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum() <= 2e-8 * a.sum()
    form = np.exp((found.value.left[:, None] + found.value.right - cost) / reg)
    np.testing.assert_allclose(plan, form, rtol=1e-8, atol=1e-300)


def test_a_step_with_all_entries_is_newtons() -> None:
    p = np.random.default_rng(1).random((5, 4)) + 0.1
    hessian = np.block([[np.diag(p.sum(1)), p], [p.T, np.diag(p.sum(0))]])
    rhs = hessian @ np.random.default_rng(2).standard_normal(9)
    for step in (_whole_step(p, rhs[:5], rhs[5:], 0.0), _sparse_step(p, rhs[:5], rhs[5:], 1.0)):
        # Up to the null vector (1, -1).
        np.testing.assert_allclose(hessian @ np.concatenate(step), rhs, rtol=3e-3, atol=3e-3 * np.abs(rhs).max())
    turned = _whole_step(p.T, rhs[5:], rhs[:5], 0.0)
    np.testing.assert_allclose(hessian @ np.concatenate(turned[::-1]), rhs, rtol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_many_columns_take_as_few_steps_as_many_rows(turned: bool) -> None:
    cost = clouds(40, 1700)
    found = sinkhorn_newton(np.ascontiguousarray(cost.T) if turned else cost, reg=1 / 400)
    assert found.converged
    assert found.iterations < 40


def test_with_little_entropy_it_is_the_transport_that_costs_least() -> None:
    cost = clouds(8, 6)
    sums = np.concatenate([np.kron(np.eye(8), np.ones(6)), np.kron(np.ones(8), np.eye(6))])
    least = linprog(cost.ravel(), A_eq=sums, b_eq=[1 / 8] * 8 + [1 / 6] * 6).fun
    found = sinkhorn_newton(cost, reg=2e-4)
    assert found.converged
    assert found.iterations < 120
    assert float((found.value.plan * cost).sum()) == pytest.approx(least, rel=1e-3)
    shifted = sinkhorn_newton(cost + 7.0, reg=2e-4)
    np.testing.assert_allclose(shifted.value.plan, found.value.plan, atol=1e-6)


@pytest.mark.parametrize("method", ["newton", "sns", "sinkhorn"])
def test_the_plan_is_that_of_sinkhorns_iteration_in_logarithms(method: str) -> None:
    """Written out, as other packages have it, until nothing moves."""
    cost, reg = clouds(), 0.05
    a, b = np.full(20, 1 / 20), np.full(14, 1 / 14)
    y = np.zeros(14)
    for _ in range(800):
        x = reg * (np.log(a) - logsumexp((y - cost) / reg, axis=1))
        y = reg * (np.log(b) - logsumexp((x[:, None] - cost) / reg, axis=0))
    found = sinkhorn_newton(cost, reg=reg, method=method, tolerance=1e-10, iterations=20_000)
    np.testing.assert_allclose(found.value.plan, np.exp((x[:, None] + y - cost) / reg), rtol=1e-6, atol=1e-9)


def test_masses_of_zero_and_what_does_not_converge() -> None:
    a = np.ones(20)
    a[3] = 0
    found = sinkhorn_newton(clouds(), a, np.full(14, 19 / 14), reg=0.1)
    assert found.converged
    assert not found.value.plan[3].any()
    early = sinkhorn_newton(clouds(), reg=1e-3, iterations=1, warm=0)
    assert not early.converged
    assert early.error > 1e-9
    assert sinkhorn_newton(np.zeros((3, 2)), reg=1.0).converged
    assert sinkhorn_newton(np.ones((1, 1)), reg=1.0).value.plan.item() == pytest.approx(1)


@pytest.mark.parametrize(
    "options",
    [{"reg": 0.0}, {"reg": 1.0, "a": -np.ones(20)}, {"reg": 1.0, "a": np.ones(20)}, {"reg": 1.0, "method": "x"}],
)
def test_refusals(options: dict[str, object]) -> None:
    with pytest.raises(Refused):
        sinkhorn_newton(clouds(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", [1e4, 1e6])
def test_no_regularisation_is_too_small(strength: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2)), rng.standard_normal((80, 2)) + 1
    cost = np.square(x[:, None] - y).sum(-1)
    a, b = rng.uniform(0.1, 1, 60), rng.uniform(0.1, 1, 80)
    found = sinkhorn_newton(cost, a / a.sum(), b / b.sum(), reg=np.ptp(cost) / strength)
    assert found.converged
    assert found.iterations < 200
