"""Every adapter on matrices and statistics at the ends of their dtypes: it starts with numbers, or is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart.adapters.contract import ADAPTERS, Layer
from eckart.statistics import Statistics
from eckart.structures import Dense
from support import hard
from support.cases import each
from support.layers import hard_statistics, statistics_of


def assert_starts(method: str, weight: Tensor, statistics: Statistics) -> None:
    gradient = hard.normal(*weight.shape, seed=7).float()
    generator = torch.Generator().manual_seed(0)
    layer = Layer(weight, statistics, 1, 1.0, generator, gradient, Dense(weight.clone()))
    try:
        start = ADAPTERS[method].entry(layer)
    except eckart.Refused:
        return
    if start is None:
        return
    assert all(torch.isfinite(leaf).all() for leaf in start.path.parameters())
    frozen = weight if start.frozen is None else start.frozen.to_dense().detach()
    assert torch.isfinite(frozen).all()
    if start.path.linear:
        path = start.path.to_dense().detach()
        assert torch.isfinite(path).all()
        if start.split:
            assert torch.isfinite((frozen.to(path) - path).to(frozen.dtype)).all()


@pytest.mark.parametrize("method", ADAPTERS)
@each(weight_name=hard.weights() | hard.ends())
def test_matrices_at_the_ends_of_their_dtype(method: str, weight_name: str) -> None:
    weight = (hard.weights() | hard.ends())[weight_name]
    out, columns = weight.shape
    assert_starts(method, weight, statistics_of(hard.normal(40, columns, seed=1), hard.normal(40, out, seed=2)))


@pytest.mark.parametrize("method", [name for name, card in ADAPTERS.items() if card.needs])
@each(where=hard_statistics(1, 1))
def test_statistics_of_any_size(method: str, where: str) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert_starts(method, hard.normal(8, 12, seed=5).to(dtype), hard_statistics(12, 8)[where])


@pytest.mark.parametrize("method", ["pissa", "svfit", "corda", "loldu"])
def test_the_matrix_that_overflows_is_named(method: str) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 8, dtype=torch.float64))
    net[0].weight.data.sign_().mul_(1.7e308)
    before = net[0].weight.detach().clone()
    data = [torch.full((4, 8), 1e-300, dtype=torch.float64)]
    with pytest.raises(eckart.Refused, match=r"0: what this adapter starts from overflows: entries .* up to 2e\+308"):
        eckart.adapt(net, method, rank=2, calibration=data)
    assert torch.equal(net[0].weight, before)
