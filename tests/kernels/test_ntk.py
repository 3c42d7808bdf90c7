"""Tangent kernels: the recursion by quadrature, networks that grow wide, gradient flow step by step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.kernels.ntk import NTK, empirical_ntk, relu_duals, trained

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(200)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def expected(s: np.ndarray, one: Any) -> float:
    """E[one(u) one(v)] of normal (u, v) of covariance s (2, 2), by quadrature."""
    a = math.sqrt(s[0, 0])
    c = s[0, 1] / a
    rest = math.sqrt(max(s[1, 1] - c * c, 0))
    inner = np.array([(WEIGHTS * one(c * node + rest * NODES)).sum() for node in NODES])
    return float((WEIGHTS * one(a * NODES) * inner).sum())


@pytest.mark.parametrize(("activation", "close"), [("erf", 1e-9), ("relu", 2e-2)])
def test_the_recursion_by_quadrature(activation: str, close: float) -> None:
    w, b, (x, z) = 1.7, 0.3, np.random.default_rng(0).standard_normal((2, 3))
    smooth = activation == "erf"
    s = np.array([[p @ q / 3 for q in (x, z)] for p in (x, z)]) * w + b
    tangent = s[0, 1]
    one = (lambda t: torch.erf(torch.as_tensor(t)).numpy()) if smooth else lambda t: np.maximum(t, 0)
    slope = (lambda t: 2 / math.sqrt(math.pi) * np.exp(-(t**2))) if smooth else lambda t: (t > 0) * 1.0
    for _ in range(2):
        gain = w * expected(s, slope)
        next_s = np.array([[expected(s[np.ix_([i, j], [i, j])], one) for j in (0, 1)] for i in (0, 1)])
        s = w * next_s + b
        tangent = s[0, 1] + gain * tangent
    for kind, value in (("ntk", tangent), ("nngp", s[0, 1])):
        made = NTK(2, activation, weight_variance=w, bias_variance=b, kind=kind)
        assert float(made(x[None], z[None])[0, 0]) == pytest.approx(value, rel=close)


def test_at_the_same_point_and_opposite_it() -> None:
    x = np.random.default_rng(1).standard_normal((4, 3))
    size = (x**2).sum(1) * 2 / 3
    np.testing.assert_allclose(NTK(3).diag(x), 4 * size)
    np.testing.assert_allclose(NTK(3)(np.vstack([x, x]))[:4, 4:].diagonal(), 4 * size)
    opposite = NTK(1)(x, -x).diagonal()
    np.testing.assert_allclose(opposite, 0, atol=1e-12)
    leaf = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    for activation in ("relu", "erf"):
        NTK(2, activation)(leaf).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    less, half = relu_duals(torch.tensor([1e-5, 0.0199, 0.0201], dtype=torch.float64))
    t = np.array([1e-5, 0.0199, 0.0201])
    np.testing.assert_allclose(less, t**2 / 2 - t**3 / (3 * np.pi) - t**4 / 24 + t**5 / (30 * np.pi), rtol=1e-8)
    np.testing.assert_allclose(half, 1 - t / np.pi)


class Wide(nn.Module):
    """ReLU layers in the parametrization of the paper."""

    def __init__(self, width: int, weight: float, bias: float) -> None:
        super().__init__()
        sizes = [3, width, width, 1]
        self.w = nn.ParameterList(torch.randn(n, m, dtype=torch.float64) for m, n in pairwise(sizes))
        self.b = nn.ParameterList(torch.randn(n, dtype=torch.float64) for n in sizes[1:])
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            x = (x.relu() if i else x) @ w.T * (self.weight / w.shape[1]) ** 0.5 + self.bias**0.5 * b
        return x


def test_wide_networks_come_close() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, dtype=torch.float64)
    limit = NTK(2, weight_variance=1.5, bias_variance=0.2)(x).detach()
    errors = []
    for width, draws in ((16, 8), (256, 2)):
        nets = [Wide(width, 1.5, 0.2) for _ in range(draws)]
        errors.append(np.mean([float((empirical_ntk(net, x) - limit).norm() / limit.norm()) for net in nets]))
    assert errors[1] < 0.15
    assert errors[1] < 0.5 * errors[0]


def test_training_is_gradient_descent_in_small_steps() -> None:
    rng = np.random.default_rng(2)
    x, new = rng.standard_normal((7, 2)), rng.standard_normal((4, 2))
    k, cross = NTK(1)(x), NTK(1)(new, x)
    y, start, there = rng.standard_normal((7, 2)), rng.standard_normal((7, 2)), rng.standard_normal((4, 2))
    f, g, step = start.copy(), there.copy(), 1e-3
    for _ in range(500):
        f, g = f - step * k @ (f - y), g - step * cross @ (f - y)
    both = trained(k, y, [0.5, np.inf], cross=cross, start=start, cross_start=there)
    np.testing.assert_allclose(both[0], g, atol=0.02)
    np.testing.assert_allclose(both[1], there + cross @ np.linalg.solve(k, y - start), atol=1e-8)
    np.testing.assert_allclose(trained(k, y, 0.5, start=start), f, atol=0.02)
    once = trained(np.ones((2, 2)), torch.tensor([1.0, 3.0]), 1e9)
    torch.testing.assert_close(once, torch.tensor([2.0, 2.0]))
    skew = k + np.triu(k, 1)
    for wrong in ({"times": -1.0}, {"cross": np.ones((2, 3))}, {"start": np.ones((3, 2))}, {"gram": skew}):
        with pytest.raises(Refused):
            trained(**{"gram": k, "y": y, "times": 1.0, **wrong})


def test_bad_networks_are_refused() -> None:
    for wrong in ({"depth": 0}, {"activation": "tanh"}, {"kind": "gp"}, {"weight_variance": 0.0}):
        with pytest.raises(Refused):
            NTK(**wrong)
