"""Adapters that are no product of two thin factors: their starts, and what they take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart.adapters.contract import ADAPTERS
from support.one_layer import IN, OUT, RANK, normal

OTHERS = ["loca", "soka", "flora", "hta", "flylora", "snell", "snella", "sara"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", OTHERS)
def test_exactly_the_matrix_at_the_start(method: str, dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(IN, OUT).to(dtype))
    weight, x = net[0].weight.detach().clone(), normal(5, IN, seed=4).to(dtype)
    before = net(x).detach()
    adapter = eckart.adapt(net, method, rank=RANK)
    path = adapter.paths["0"]
    if method == "soka":
        total = adapter.places["0"].base.weight.double() + path.to_dense().double()
        assert (total - weight.double()).norm() <= torch.finfo(dtype).eps * weight.double().norm()
    elif method == "sara":
        assert torch.equal(adapter.places["0"].base.weight + path.to_dense(), weight.float())
    else:
        assert torch.equal(net(x), before)
        assert torch.equal(path(x.float()), torch.zeros(5, OUT))


@pytest.mark.parametrize("method", OTHERS)
def test_the_budget_is_near_that_of_a_low_rank_adapter(method: str) -> None:
    for out, columns in ((1536, 576), (576, 576), (4096, 11008)):
        for rank in (4, 16):
            theirs = ADAPTERS["lora"].parameters(out, columns, rank)
            assert 0.7 * theirs <= ADAPTERS[method].parameters(out, columns, rank) <= 1.15 * theirs
