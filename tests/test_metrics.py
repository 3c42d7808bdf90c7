"""The metric against its definition with explicit square roots."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.metrics import Metric
from support import hard
from support.roots import root, sides

few = settings(deadline=None, max_examples=25)


@pytest.mark.parametrize("left", ["none", "vector", "matrix"])
@pytest.mark.parametrize("right", ["none", "vector", "matrix"])
def test_error_is_the_weighted_frobenius_norm(left: str, right: str) -> None:
    d = hard.normal(5, 8)
    l, r = sides(5, 1)[left], sides(8, 2)[right]
    expected = (root(l, 5) @ d @ root(r, 8)).square().sum()
    error = Metric(l, r).error(d)
    assert error.dtype == torch.float64
    torch.testing.assert_close(error, expected, rtol=1e-12, atol=0)


@few
# Squares of scales below 1e-150 are subnormal, and have no relative precision to speak of.
@given(seed=st.integers(0, 99), scale=st.floats(-100, 100).filter(lambda s: s == 0 or abs(s) > 1e-140))
def test_error_is_quadratic_and_never_negative(seed: int, scale: float) -> None:
    metric = Metric(sides(4, seed)["matrix"], sides(6, seed + 1)["matrix"])
    a, b = hard.normal(4, 6, seed=seed), hard.normal(4, 6, seed=seed + 1)
    torch.testing.assert_close(metric.error(scale * a), scale**2 * metric.error(a), rtol=1e-10, atol=0)
    parallelogram = metric.error(a + b) + metric.error(a - b)
    torch.testing.assert_close(parallelogram, 2 * metric.error(a) + 2 * metric.error(b), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", hard.second_moments(6))
def test_a_matrix_in_the_null_space_costs_nothing(name: str) -> None:
    moment = hard.second_moments(6)[name]
    d = hard.normal(3, 6)
    error = Metric(right=moment).error(d)
    assert error >= 0
    torch.testing.assert_close(error, (d @ moment * d).sum(), rtol=1e-9, atol=1e-12 * float(moment.trace()))


def test_mean_squared_error_of_the_output() -> None:
    x, d = hard.normal(50, 6), hard.normal(4, 6, seed=1)
    error = Metric(right=x.T @ x / 50).error(d)
    torch.testing.assert_close(error, (x @ d.T).square().sum(1).mean(), rtol=1e-12, atol=0)


def test_short_dtypes_are_measured_in_float64() -> None:
    d = torch.full((2, 3), 300.0, dtype=torch.float16)
    assert Metric().error(d).item() == 6 * 300.0**2
    assert Metric(right=torch.ones(3, dtype=torch.bfloat16)).error(d).item() == 6 * 300.0**2


@pytest.mark.parametrize("shape", [(), (2, 3), (2, 2, 2)])
def test_sides_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="left"):
        Metric(left=torch.ones(shape))
    with pytest.raises(ValueError, match="right"):
        Metric(right=torch.ones(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sides_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="right has NaN or Inf"):
        Metric(right=torch.tensor([1.0, value]))
    with pytest.raises(ValueError, match="left has NaN or Inf"):
        Metric(left=torch.tensor([[1.0, 0.0], [0.0, value]]))


def test_differences_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="size 3"):
        Metric(left=torch.ones(3)).error(torch.ones(2, 3))
    with pytest.raises(ValueError, match="size 2"):
        Metric(right=torch.eye(2)).error(torch.ones(2, 3))
    with pytest.raises(ValueError, match="matrix"):
        Metric().error(torch.ones(3))
