"""Softmax-free attention: the formula, both inverses, lengths, masks, samples by themselves, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eckart.errors import Refused
from eckart.layers.soft import RIDGE, SoftmaxFreeAttention, gaussian, newton_inverse, softmax_free_attention


def points(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("normalize", [True, False])
def test_it_is_the_formula(normalize: bool) -> None:
    q, marks, v = points(7, 3), points(4, 3, seed=1), points(7, 2, seed=2)
    k = torch.exp(-(torch.cdist(q, marks) ** 2) / 2)
    inner = torch.exp(-(torch.cdist(marks, marks) ** 2) / 2)
    middle = torch.linalg.inv(inner + RIDGE * torch.eye(4))
    if normalize:
        root = torch.diag(inner.sum(1) ** -0.5)
        middle = root @ middle @ root
    expected = k @ middle @ k.T @ v
    for inverse in ("cholesky", "newton"):
        found = softmax_free_attention(q, marks, v, inverse=inverse, normalize=normalize)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_newton_is_an_inverse_with_its_gradient() -> None:
    a = gaussian(points(2, 5, 3), points(2, 5, 3)) + 0.1 * torch.eye(5)
    torch.testing.assert_close(newton_inverse(a), torch.linalg.inv(a))
    grad = points(2, 5, 5, seed=3)
    leaf = a.clone().requires_grad_()
    other = a.clone().requires_grad_()
    found = torch.autograd.grad(newton_inverse(leaf), leaf, grad)
    torch.testing.assert_close(found, torch.autograd.grad(torch.linalg.inv(other), other, grad))


ARMS = [{"landmarks": marks, "inverse": inverse} for marks in ("conv", "pool") for inverse in ("cholesky", "newton")]


@pytest.mark.parametrize("options", ARMS)
def test_gradients_and_samples_by_themselves(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = SoftmaxFreeAttention(4, 2, tokens=3, filter_size=2, **options).double()
    x = points(2, 7, 4)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 4:] = False
    assert torch.autograd.gradcheck(lambda t: net(t, mask), (x.requires_grad_(),), atol=1e-4)
    net(x, mask).square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in net.parameters())
    with torch.no_grad():
        alone = torch.cat([net(x[i : i + 1], mask[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(net(x, mask), alone)
        changed = x.clone()
        changed[0, 4:] += 100
        torch.testing.assert_close(net(changed, mask)[0, :4], net(x, mask)[0, :4])


def test_any_length_and_kinds_and_files() -> None:
    net = SoftmaxFreeAttention(8, 2, tokens=5)
    for n in (1, 4, 5, 6, 33):
        assert net(torch.randn(2, n, 8)).shape == (2, n, 8)
    again = SoftmaxFreeAttention(8, 2, tokens=5)
    again.load_state_dict(net.state_dict())
    x = torch.randn(1, 9, 8)
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)
    half = net.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), again(x), rtol=0.1, atol=0.05)
    assert not net(x.bfloat16(), torch.zeros(1, 9, dtype=torch.bool)).isnan().any()


def test_equal_tokens_attend_to_all_alike() -> None:
    net = SoftmaxFreeAttention(4, 1, tokens=2, landmarks="pool").double()
    x = points(1, 1, 4).expand(1, 6, 4)
    found = net(x)
    torch.testing.assert_close(found, found[:, :1].expand_as(found))


def test_sixteen_bits_are_near_thirty_two() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 49, 64) + 3
    for options in ({"inverse": "cholesky"}, {"inverse": "newton"}, {"landmarks": "conv"}):
        net = SoftmaxFreeAttention(64, 8, tokens=12, **options)
        truth = net(x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            found = [net(x)]
        found[0].float().square().sum().backward()
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in net.parameters())
        found.append(net.bfloat16()(x.bfloat16()))
        for each in found:
            assert each.dtype == torch.bfloat16
            assert float((each.detach().float() - truth).norm() / truth.norm()) < 0.05


@pytest.mark.parametrize("marks", ["pool", "conv"])
def test_masked_tokens_may_hold_anything(marks: Any) -> None:
    net, x = SoftmaxFreeAttention(4, 2, tokens=2, landmarks=marks), torch.randn(1, 5, 4)
    mask = torch.tensor([[True, True, False, True, False]])
    spoilt = x.masked_fill(~mask[..., None], float("nan"))
    found = net(spoilt, mask)
    torch.testing.assert_close(found, net(x, mask), rtol=0, atol=0)
    found.square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in net.parameters())
    q, v = points(5, 3), points(5, 2, seed=1)
    other = (part.masked_fill(~mask[0, :, None], float("inf")) for part in (q, v))
    said = [softmax_free_attention(a, q[:2], b, mask=mask[0]) for a, b in ((q, v), tuple(other))]
    torch.testing.assert_close(said[1], said[0], rtol=0, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"heads": 3}, {"tokens": 0}, {"landmarks": "rows"}, {"inverse": "svd"}):
        with pytest.raises(Refused):
            SoftmaxFreeAttention(4, **{"heads": 2, **wrong})
    net = SoftmaxFreeAttention(4, 2)
    assert net(torch.zeros(0, 3, 4), torch.ones(0, 3, dtype=torch.bool)).shape == (0, 3, 4)
    for x, mask in ((torch.zeros(2, 4), None), (torch.zeros(1, 0, 4), None), (torch.zeros(1, 2, 4), torch.ones(1, 2))):
        with pytest.raises(Refused):
            net(x, mask)
