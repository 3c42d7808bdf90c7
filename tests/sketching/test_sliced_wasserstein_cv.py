"""Sliced distances against quantiles by hand, exact means, and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from eckart.errors import Refused
from eckart.sketching.sliced_wasserstein_cv import controls, directions, quantile_transport, sliced_wasserstein


def clouds(d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((20, d)), rng.standard_normal((15, d)) * 1.5 + 0.7


def test_on_lines_it_is_the_transport_that_costs_least() -> None:
    rng = np.random.default_rng(1)
    x, y, a, b = rng.standard_normal((1, 6)), rng.standard_normal((1, 4)), rng.random(6), rng.random(4)
    a, b = a / a.sum(), b / b.sum()
    sums = np.concatenate([np.kron(np.eye(6), np.ones(4)), np.kron(np.ones(6), np.eye(4))])
    least = linprog(np.square(x[0][:, None] - y[0]).ravel(), A_eq=sums, b_eq=np.concatenate([a, b])).fun
    got = quantile_transport(*map(torch.from_numpy, (x, y, a, b)))
    assert float(got[0]) == pytest.approx(least)
    same = quantile_transport(torch.from_numpy(x), torch.from_numpy(x[:, ::-1].copy()))
    assert float(same[0]) == pytest.approx(0)


def test_directions_are_orthogonal_and_uniform() -> None:
    theta = directions(9, 4, np.random.default_rng(0))
    np.testing.assert_allclose(theta[:4] @ theta[:4].T, np.eye(4), atol=1e-12)
    many = directions(8000, 4, np.random.default_rng(0))
    np.testing.assert_allclose(many.T @ many / 8000, np.eye(4) / 4, atol=1e-12)
    assert np.abs(many.mean(0)).max() < 5 * (1 / 4 / 8000) ** 0.5


def test_the_means_of_the_controls_are_what_they_are_taken_for() -> None:
    x, y = map(torch.from_numpy, clouds())
    a = torch.linspace(1, 2, 20, dtype=torch.float64)
    theta = torch.from_numpy(directions(30_000, 3, np.random.default_rng(0), orthogonal=False))
    values, expected = controls(x, y, theta, a / a.sum(), None, "both")
    assert ((values.mean(0) - expected).abs() < 5 * values.std(0) / 30_000**0.5).all()


@pytest.mark.parametrize("control", ["lower", "upper", "both", None])
@pytest.mark.parametrize("lines", ["orthogonal", "uniform"])
def test_estimates_are_unbiased_and_their_errors_as_stated(control: str | None, lines: str) -> None:
    """Over 120 draws; 5 standard errors, once in 2 million, and a stated error within a third of the true one."""
    x, y = clouds()
    exact = float(sliced_wasserstein(x, y, projections=60_000, control="both", generator=0).value)
    found = [sliced_wasserstein(x, y, projections=30, control=control, lines=lines, generator=s) for s in range(120)]
    values = np.array([each.value for each in found])
    assert abs(values.mean() - exact) < 5 * values.std() / 120**0.5 + 0.003 * exact
    assert 0.6 < np.mean([each.error for each in found]) / values.std() < 1.7


def test_controls_lower_the_variance() -> None:
    x, y = clouds()
    spread = {
        c: np.std(
            [sliced_wasserstein(x, y, projections=30, control=c, lines="uniform", generator=s).value for s in range(60)]
        )
        for c in ("lower", None)
    }
    assert spread["lower"] < 0.6 * spread[None]


def test_gradients_invariances_and_ends() -> None:
    x, y = (torch.from_numpy(z[:6]).requires_grad_() for z in clouds())
    assert torch.autograd.gradcheck(
        lambda u, v: sliced_wasserstein(u, v, projections=7, control=None, generator=0).value, (x, y)
    )
    moved = torch.autograd.grad(sliced_wasserstein(x, y, projections=7, generator=0).value, [x, y])
    # A common shift changes no distance.
    torch.testing.assert_close(moved[0].sum(0), -moved[1].sum(0))
    a, b = clouds()
    assert float(sliced_wasserstein(a, a, projections=9).value) == pytest.approx(0, abs=1e-12)
    twice = sliced_wasserstein(np.repeat(a, 2, 0), b, generator=0).value
    assert twice == pytest.approx(sliced_wasserstein(a, b, generator=0).value)
    weighted = sliced_wasserstein(a, b, a=np.r_[2.0, np.ones(19)], generator=0).value
    assert weighted == pytest.approx(sliced_wasserstein(np.r_[a[:1], a], b, generator=0).value)
    assert float(sliced_wasserstein(a[:, :1], b[:, :1], projections=1).value) > 0
    with pytest.raises(Refused, match="clouds of shapes"):
        sliced_wasserstein(a, b[:, :2])
    with pytest.raises(Refused, match="masses"):
        sliced_wasserstein(a, b, a=np.ones(3))
