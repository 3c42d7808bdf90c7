"""SaRA: the smallest entries train, the grown ones are frozen, the penalty."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart.adapters import sara
from eckart.structures import Sparse
from support.one_layer import IN, OUT, RANK, normal, one_layer, start, steps
from support.tiny import tiny_llama


def test_sara_trains_the_smallest_entries() -> None:
    weight = normal(OUT, IN, seed=1)
    path = start("sara", weight).path
    assert isinstance(path, Sparse)
    count = RANK * (OUT + IN)
    limit = weight.abs().flatten().sort().values[count - 1]
    small = weight.abs() <= limit
    assert torch.equal(path.to_dense().detach(), weight * small)
    assert len(path.values) == count
    assert len(sara.smallest(torch.zeros(3, 4), 5, torch.float32).values) == 5
    path.check_values()


def test_sara_freezes_what_has_grown_half_way() -> None:
    net, adapter = one_layer("sara")
    path = adapter.paths["0"]
    assert isinstance(path, Sparse)
    limit = float(path.values.detach().abs().max())
    history: list[Tensor] = []
    steps(net, adapter, 20, each=lambda step: history.append(path.values.detach().clone()))
    middle, end = history[10], path.values.detach()
    grown = middle.abs() > limit
    assert 0 < int(grown.sum()) < len(grown)
    assert torch.equal(middle[grown], end[grown])
    assert not (middle == end)[~grown].any()


def test_sara_has_the_nuclear_norm_of_one_matrix_as_its_penalty() -> None:
    adapter = eckart.adapt(tiny_llama(), "sara", rank=2)
    norms = [torch.linalg.svdvals(path.to_dense().detach()).sum() for path in adapter.paths.values()]
    drawn = set()
    for step in range(6):
        found = adapter.regulariser().detach()
        drawn.add(min(range(len(norms)), key=lambda i: float((sara.PENALTY * norms[i] - found).abs())))
        with torch.no_grad():
            first = next(iter(adapter.paths.values()))
            next(first.parameters()).add_(1e-6 * (step + 1))
    assert len(drawn) > 1
    term = adapter.regulariser()
    assert float(term.detach()) == pytest.approx(float(adapter.regulariser().detach()))
    term.backward()
    assert sum(p.grad is not None for p in adapter.trainable_parameters()) == 1
