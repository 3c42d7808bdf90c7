"""SNELLA: matrices compete for entries."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart.adapters import snell, snella
from eckart.jobs.adapt.train import train
from eckart.jobs.learning.loop import Training
from support.adapting import examples
from support.tiny import tiny_llama


def test_snella_lets_matrices_compete() -> None:
    assert snella.allocated(torch.tensor([1.0, 3.0]), torch.tensor([100, 100]), 40) == [10, 30]
    assert snella.allocated(torch.tensor([1.0, 9.0]), torch.tensor([100, 50]), 100) == [50, 50]
    assert snella.allocated(torch.tensor([1.0, 1.0, 8.0]), torch.tensor([100, 100, 50]), 70) == [10, 10, 50]
    assert snella.allocated(torch.zeros(2), torch.tensor([30, 10]), 20) == [15, 5]
    assert snella.allocated(torch.tensor([0.0, 1.0]), torch.tensor([30, 10]), 20) == [1, 10]
    model = tiny_llama()
    adapter = eckart.adapt(model, "snella", rank=4)
    sizes = {name: path.shape[0] * path.shape[1] for name, path in adapter.paths.items()}
    assert {name: int(path.kept) for name, path in adapter.paths.items()} == sizes  # type: ignore[arg-type]
    totals: list[int] = []

    def note(phase: str, done: int, total: int) -> None:
        totals.append(sum(int(path.kept) for path in adapter.paths.values()))  # type: ignore[arg-type]

    train(adapter, examples(), [], Training(steps=20, rate=1e-2), progress=note)
    whole = sum(sizes.values())
    assert totals[:3] == [whole] * 3
    assert totals[3:15] == sorted(totals[3:15], reverse=True)
    assert totals[14] == totals[-1] == pytest.approx(snell.DENSITY * whole, rel=0.01)
    shares = [int(path.kept) / sizes[name] for name, path in adapter.paths.items()]  # type: ignore[arg-type]
    assert max(shares) > 2 * min(shares)
    for path in adapter.paths.values():
        path.check_values()
        assert int((path.to_dense() != 0).sum()) == int(path.kept)  # type: ignore[arg-type]
