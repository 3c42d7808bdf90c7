"""Rates and decays at another width, and the gains that they are to keep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eckart.errors import Refused
from eckart.optim import groups
from eckart.optim.weight_decay_scaling import at_width, sublayer_gains


def test_matrices_are_scaled_by_the_roots_and_vectors_lose_their_decay() -> None:
    net = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 8))
    split = groups(net, {"lr": 0.4, "weight_decay": 0.1}, {"lr": 0.3, "weight_decay": 0.2}, show=False)
    found = at_width(split, base=64, width=256)
    assert (found[0]["lr"], found[0]["weight_decay"]) == (0.1, 0.2)
    assert all((group["lr"], group["weight_decay"]) == (0.3, 0.0) for group in found[1:])
    # The steady state sqrt(lr / decay) d^0.75 is where it was.
    before, after = ((g["lr"] / g["weight_decay"]) ** 0.5 * d**0.75 for g, d in ((split[0], 64), (found[0], 256)))
    assert abs(before / after - 1) < 1e-12
    torch.optim.AdamW(found)
    assert at_width(split, base=64, width=64)[0] == split[0]


def test_what_is_not_said_is_refused() -> None:
    with pytest.raises(Refused, match="no weight_decay"):
        at_width([{"params": [], "lr": 1.0}], base=1, width=2)
    with pytest.raises(Refused, match="width=0"):
        at_width([], base=1, width=0)


def test_gains_are_the_largest_singular_values() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 5))
    gains = sublayer_gains(net)
    assert list(gains) == ["0.weight", "1.weight"]
    filters = net[0].weight.detach().flatten(1)
    assert abs(gains["0.weight"] - float(torch.linalg.svdvals(filters)[0])) < 1e-5
