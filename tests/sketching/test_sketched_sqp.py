"""Minima under equations against solutions that are known, by every inner solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.sketching.sketched_sqp import minimize_equality

INNER = ["direct", "minres", "sketch"]


@pytest.mark.parametrize("inner", INNER)
def test_a_quadratic_under_linear_equations_is_its_kkt_system(inner: str) -> None:
    rng = np.random.default_rng(0)
    q, a, b = rng.standard_normal((5, 5)), rng.standard_normal((2, 5)), rng.standard_normal(2)
    h, c = q @ q.T + np.eye(5), rng.standard_normal(5)
    kkt = np.block([[h, a.T], [a, np.zeros((2, 2))]])
    exact = np.linalg.solve(kkt, np.concatenate([-c, b]))
    found = minimize_equality(
        lambda x: x @ torch.from_numpy(h) @ x / 2 + torch.from_numpy(c) @ x,
        lambda x: torch.from_numpy(a) @ x - torch.from_numpy(b),
        np.zeros(5),
        inner=inner,
        block=4,
        generator=0,
    )
    assert found.converged
    np.testing.assert_allclose(np.concatenate(found.value), exact, atol=1e-6)
    if inner == "direct":
        assert found.iterations == 1


@pytest.mark.parametrize("inner", INNER)
def test_curved_problems(inner: str) -> None:
    def rosenbrock(x: Tensor) -> Tensor:
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    found = minimize_equality(
        rosenbrock, lambda x: (x.square().sum() - 2)[None], np.array([1.2, 0.5]), inner=inner, block=2, generator=0
    )
    assert found.converged
    np.testing.assert_allclose(found.value[0], [1, 1], atol=1e-5)
    # The largest eigenvalue of a diagonal matrix: a problem whose Hessian is not positive.
    values = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)

    def negative(x: Tensor) -> Tensor:
        return -(values * x * x).sum()

    top = minimize_equality(negative, lambda x: (x @ x - 1)[None], np.ones(3) / 2, inner=inner, block=3, generator=0)
    assert top.converged
    np.testing.assert_allclose(np.abs(top.value[0]), [0, 0, 1], atol=1e-5)
    assert top.value[1][0] == pytest.approx(5, abs=1e-5)


def test_sketches_take_far_more_products() -> None:
    def run(inner: str) -> int:
        target = torch.arange(8.0, dtype=torch.float64)
        return minimize_equality(
            lambda x: (x - target).square().sum(), lambda x: x[:2].square() - 1, np.ones(8), inner=inner, generator=0
        ).calls

    assert run("direct") < run("sketch")


def test_what_is_no_such_problem_is_refused_and_what_fails_is_said() -> None:
    with pytest.raises(Refused, match="more equations"):
        minimize_equality(lambda x: x.sum(), lambda x: x.repeat(2), np.ones(2))
    with pytest.raises(Refused, match="not finite"):
        minimize_equality(lambda x: x.log().sum(), lambda x: x[:1], -np.ones(2))
    with pytest.raises(Refused, match="inner='best'"):
        minimize_equality(lambda x: x.sum(), lambda x: x[:1], np.ones(2), inner="best")  # type: ignore[arg-type]
    never = minimize_equality(
        lambda x: x.square().sum(), lambda x: (x.square().sum() + 1)[None], np.ones(2), iterations=30
    )
    assert not never.converged
