"""AdaLoRA: what starts, the budget of triplets over the steps, and which of them are kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from eckart.adapters._svd_form import leaves
from eckart.adapters.adalora import Budget
from support.adapting import adapted, train
from support.one_layer import normal, one_layer
from support.tiny import tiny_llama


def test_adalora_ends_with_the_triplets_asked_for() -> None:
    model = tiny_llama()
    adapter = adapted(model, "adalora")
    parts = [leaves(path) for path in adapter.paths.values()]
    assert all(len(values) == 6 for _, values, _ in parts)
    train(model, adapter, steps=20)
    alive = sum(int((values != 0).sum()) for _, values, _ in parts)
    assert alive == 4 * len(parts)
    assert len({int((values != 0).sum()) for _, values, _ in parts}) > 1
    schedule = Budget(adapter.paths, 100, lambda name: torch.zeros(0))
    counts = [schedule.budget(step) for step in range(1, 101)]
    assert counts[:10] == [6 * len(parts)] * 10
    assert counts[69:] == [4 * len(parts)] * 31
    assert all(a >= b for a, b in pairwise(counts))
    assert counts[39] == int(2 * len(parts) * 0.5**3 + 4 * len(parts))
    for part in parts:
        for leaf in part:
            leaf.grad = None
    with pytest.raises(ValueError, match="before gradients are set to zero"):
        schedule.step(1)


def test_the_triplets_of_least_importance_go() -> None:
    """Section 3.2 of the paper: smoothed sensitivity times its smoothed spread, of a value and of both vectors."""
    _, adapter = one_layer("adalora", rank=4)
    parts = leaves(adapter.paths["0"])
    schedule = Budget(adapter.paths, 10, lambda name: torch.zeros(0))
    smooth, spread = ([torch.zeros_like(p).detach() for p in parts] for _ in range(2))
    for step in range(1, 8):
        for i, p in enumerate(parts):
            with torch.no_grad():
                p.copy_(normal(*p.shape, seed=10 * step + i))
            p.grad = normal(*p.shape, seed=10 * step + i + 5)
            if step < 7:
                sensitivity = (p * p.grad).abs().detach()
                smooth[i] = 0.85 * smooth[i] + 0.15 * sensitivity
                spread[i] = 0.85 * spread[i] + 0.15 * (sensitivity - smooth[i]).abs()
        schedule.step(step)
        left, values, right = (a * b for a, b in zip(smooth, spread, strict=True))
        order = (values + left.mean(0) + right.mean(1)).argsort(descending=True)
        # Six triplets up to a tenth of the steps, four from seven tenths on, a cube in between.
        count = int(4 + 2 * (1 - min(1, max(0, step - 1) / 6)) ** 3)
        assert set((parts[1] != 0).nonzero()[:, 0].tolist()) == set(order[:count].tolist())
    assert count == 4
