"""Attention by features of polynomials, against the polynomial of every score."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.ops.polynomial_attention import allowed, count, features, polynomial_attention, taylor, worst
from support import hard


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return (scale * hard.normal(*shape, seed=seed)).double().requires_grad_()


def material(tokens: int, scale: float = 0.4) -> list[Tensor]:
    return [draw(2, 3, tokens, 5, seed=i, scale=s) for i, s in enumerate((scale, scale, 1.0))]


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_features_multiply_to_the_series(degree: int) -> None:
    x, y = draw(7, 4, seed=0), draw(6, 4, seed=1)
    phi = features(x, degree)
    assert phi.shape == (7, count(4, degree)) == (7, math.comb(4 + degree, degree))
    expected = sum((x @ y.T) ** j / math.factorial(j) for j in range(degree + 1))
    torch.testing.assert_close(phi @ features(y, degree).T, expected)
    torch.testing.assert_close(taylor(x @ y.T, degree), expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [1, 128, 300])
def test_values_and_gradients_are_those_of_the_polynomial(tokens: int, causal: bool) -> None:
    q, k, v = material(tokens)
    seen = torch.arange(tokens) < torch.tensor([[tokens], [max(1, tokens - 40)]])
    found = polynomial_attention(q, k, v, 0.5, causal, 2, math.inf, seen)
    shown = seen[:, None, :, None]
    mean = (k * shown).sum(2, keepdim=True) / shown.sum(2, keepdim=True)
    weights = taylor(0.5 * q @ (k if causal else k - mean).mT, 2) * seen[:, None, None]
    weights = weights.tril() if causal else weights
    expected = weights @ v / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    g = hard.normal(*found.shape, seed=9)
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_outputs_are_within_the_stated_bound(degree: int) -> None:
    for tolerance in (0.01, 0.1, 1.0):
        most = allowed(tolerance, degree)
        assert worst(most, degree) == pytest.approx(tolerance, rel=1e-6)
        q, k, v = (x.detach() for x in material(60))
        k = k - k.mean(2, keepdim=True)
        q = q * (0.999 * most / (q.norm(dim=-1).amax(-1) * k.norm(dim=-1).amax(-1)))[..., None, None]
        found = polynomial_attention(q, k, v, 1.0, False, degree, tolerance)
        off = (found - (q @ k.mT).softmax(-1) @ v).norm(dim=-1).max()
        assert 0 < off <= tolerance * v.norm(dim=-1).max()
        with pytest.raises(Refused, match=rf"degree {degree} is within tolerance={tolerance} up to"):
            polynomial_attention(1.01 * q, k, v, 1.0, False, degree, tolerance)
    assert worst(800.0, degree) == worst(math.nan, degree) == math.inf
    assert worst(0.0, degree) == 0


def test_later_tokens_change_nothing_and_the_mean_of_the_keys_falls_out() -> None:
    q, k, v = (x.detach() for x in material(200))
    whole = polynomial_attention(q, k, v, 0.5, True, 2, math.inf)
    part = polynomial_attention(q[:, :, :150], k[:, :, :150], v[:, :, :150], 0.5, True, 2, math.inf)
    torch.testing.assert_close(whole[:, :, :150], part, rtol=0, atol=1e-14)
    open_ = polynomial_attention(q, k, v, 0.5, False, 2, math.inf)
    torch.testing.assert_close(polynomial_attention(q, k + 5, v, 0.5, False, 2, math.inf), open_)


def test_what_it_cannot_do_is_refused_and_16_bits_are_not() -> None:
    q, k, v = (x.detach() for x in material(20, 0.1))
    for words, change in {
        "degree must be an integer of at least 1, got 0": {"degree": 0},
        r"degree=40 gives a token 1,221,759 features": {"degree": 40},
        "queries or keys are not finite": {"query": q * math.nan},
        "here: scores may be as large as": {"query": 1e3 * q, "whose": "here"},
        "20 positions cannot see 10 tokens causally": {"keys": k[:, :, :10], "values": v[:, :, :10], "causal": True},
    }.items():
        with pytest.raises(Refused, match=words):
            polynomial_attention(**{"query": q, "keys": k, "values": v, "scale": 1.0, **change})
    exact = (q @ k.mT).softmax(-1) @ v
    for dtype in (torch.bfloat16, torch.float16):
        found = polynomial_attention(q.to(dtype), k.to(dtype), v.to(dtype), 1.0)
        assert found.dtype == dtype
        assert (found.double() - exact).norm() < 0.02 * exact.norm()
    none = polynomial_attention(q, k, v, 1.0, seen=torch.zeros(2, 20, dtype=torch.bool))
    assert not none.any()
