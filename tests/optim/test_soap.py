"""SOAP: Adam in the eigenbases of the first gradient, how these follow, and what does not change it."""

from __future__ import annotations

import torch

from eckart.optim.soap import Soap, followed
from support.stepping import drawn, rotation, stepped


def test_between_two_looks_it_is_adam_in_the_eigenbases() -> None:
    weight, grads = drawn(6, 6, count=6)
    u, _, vt = torch.linalg.svd(grads[0])
    inside = torch.nn.Parameter(u.T @ weight @ vt.T)
    adam = torch.optim.Adam([inside], lr=0.01, betas=(0.95, 0.95))
    places = stepped(Soap, weight, grads, lr=0.01, weight_decay=0.0, every=100)
    assert torch.equal(places[0], weight)
    for place, grad in zip(places[1:], grads[1:], strict=True):
        inside.grad = u.T @ grad @ vt.T
        adam.step()
        torch.testing.assert_close(u @ inside.detach() @ vt, place)


def test_a_side_that_is_too_long_is_left_as_it_is() -> None:
    weight, grads = drawn(5, 7, count=3)
    u = torch.linalg.svd(grads[0]).U
    inside = torch.nn.Parameter(u.T @ weight)
    adam = torch.optim.Adam([inside], lr=0.01, betas=(0.95, 0.95))
    for grad in grads[1:]:
        inside.grad = u.T @ grad
        adam.step()
    place = stepped(Soap, weight, grads, lr=0.01, weight_decay=0.0, largest=6)[-1]
    torch.testing.assert_close(u @ inside.detach(), place)


def test_the_bases_come_to_the_eigenvectors() -> None:
    q = rotation(6)
    factor = q * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64) @ q.T
    basis = rotation(6, seed=3)
    for _ in range(80):
        basis = followed(basis, factor)
    torch.testing.assert_close((basis.T @ q).abs(), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)


def test_moments_are_turned_and_steps_stay_of_the_size_of_the_rate() -> None:
    torch.manual_seed(0)
    weight, target = torch.randn(12, 8), torch.randn(12, 8)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = Soap([parameter], lr=0.01, every=2, weight_decay=0.0)
    before = weight
    for _ in range(40):
        parameter.grad = parameter.detach() - target
        optimizer.step()
        assert float((parameter.detach() - before).norm()) < 0.01 * 3 * 96**0.5
        before = parameter.detach().clone()
    assert float((parameter.detach() - target).norm()) < 0.95 * float((weight - target).norm())


def test_bases_turn_it() -> None:
    weight, grads = drawn(6, 6, count=8)
    left, right = rotation(6), rotation(6, seed=2)
    plain = stepped(Soap, weight, grads, every=3)[-1]
    turned = stepped(Soap, left @ weight @ right, [left @ g @ right for g in grads], every=3)[-1]
    torch.testing.assert_close(turned, left @ plain @ right)


def test_a_nan_is_not_taken_for_rounding() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 5))
    optimizer = Soap([weight])
    for gradient in (torch.ones(4, 5), torch.full((4, 5), torch.nan)):
        weight.grad = gradient
        optimizer.step()
    assert weight.isnan().all()
