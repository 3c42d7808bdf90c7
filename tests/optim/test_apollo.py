"""APOLLO: its formula written out with the projection that its seed gives, and the one scale of the small one."""

from __future__ import annotations

import torch

from eckart.optim.apollo import Apollo, ApolloMini
from support.stepping import drawn, stepped


def projection(number: int, refresh: int, size: int, rank: int) -> torch.Tensor:
    """What the optimizer draws for the seed 0."""
    generator = torch.Generator().manual_seed((number * 1_000_003 + refresh) % 2**63)
    return (torch.randn(size, rank, generator=generator) / rank**0.5).double()


def test_three_steps_written_out() -> None:
    for shape in ((4, 7), (7, 4)):
        weight, grads = drawn(*shape, count=3)
        across = shape[0] < shape[1]
        place, before = (weight if across else weight.T), float("inf")
        m = v = torch.zeros(3, 7, dtype=torch.float64)
        for step, grad in enumerate(grads, 1):
            g = grad if across else grad.T
            r = projection(0, (step - 1) // 2, 4, 3).T @ g
            m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r**2
            moved = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            change = g * (moved.norm(dim=0) / r.norm(dim=0))
            change = change * min(1.0, 1.01 * before / float(change.norm()))
            before = float(change.norm())
            place = place - 0.1 * 4**0.5 * change
        found = stepped(Apollo, weight, grads, rank=3, every=2, scale=4.0, lr=0.1)[-1]
        torch.testing.assert_close(found, place if across else place.T)


def test_the_small_one_steps_along_the_gradient() -> None:
    weight, grads = drawn(6, 5, count=4)
    places = [weight, *stepped(ApolloMini, weight, grads)]
    for before, after, grad in zip(places[:-1], places[1:], grads, strict=True):
        change = (before - after).flatten()
        assert float(torch.cosine_similarity(change, grad.flatten(), dim=0)) > 1 - 1e-9


def test_projections_keep_lengths_on_average() -> None:
    drawings = torch.stack([projection(i, 0, 8, 4) for i in range(2000)])
    torch.testing.assert_close((drawings @ drawings.mT).mean(0), torch.eye(8).double(), rtol=0, atol=0.1)
