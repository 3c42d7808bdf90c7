"""FlyLoRA: which rows act, and how they are balanced."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart.adapters import flylora
from eckart.structures import Gated
from support.one_layer import normal, one_layer, start, steps, stirred
from support.tiny import tiny_llama


def test_flylora_lets_a_quarter_act() -> None:
    weight = normal(32, 64)
    path = start("flylora", weight, 4).path
    assert isinstance(path, Gated)
    n = flylora.width(32, 64, 4)
    assert (n, path.active) == (12, 3)
    assert not path.linear
    a = path.right.to_dense().detach()
    assert (a != 0).sum(1).tolist() == [16] * n
    stirred(path)
    path.bias.copy_(normal(n, seed=3) * 0.1)
    x = normal(5, 64, seed=4)
    b, y = path.left.to_dense().detach(), x @ a.T
    for i in range(5):
        score = (y[i] + path.bias).abs()
        acting = score >= score.sort().values[-3]
        assert acting.sum() == 3
        torch.testing.assert_close(path(x)[i].detach(), b[:, acting] @ y[i][acting])
    with pytest.raises(ValueError, match="depends on its input"):
        path.to_dense()
    with torch.no_grad():
        path.tally = None
        path(x)
        assert path.tally is None


def test_flylora_balances_and_refuses_to_be_merged() -> None:
    net, adapter = one_layer("flylora", rank=4)
    path = adapter.paths["0"]
    assert isinstance(path, Gated)
    seen: list[Tensor] = []
    steps(net, adapter, 1, each=lambda step: seen.append(path.tally))  # type: ignore[arg-type]
    counts = seen[0].float()
    assert counts.sum() == 64 * path.active
    torch.testing.assert_close(path.bias, flylora.RATE * (counts.mean() - counts).sign())
    assert path.tally is None
    with pytest.raises(ValueError, match="depends on its input"):
        adapter.merge()
    scaled = eckart.adapt(tiny_llama(), "flylora", rank=2, alpha=4)
    assert not any(each.linear for each in scaled.paths.values())
    with pytest.raises(ValueError, match="depends on its input"):
        scaled.merge()
