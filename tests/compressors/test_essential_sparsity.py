"""One threshold for all matrices, and the point from which on a model suffers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart import METHODS, Statistics
from eckart.budget import ALLOCATIONS
from eckart.budget.contract import Candidates
from eckart.compressors.essential_sparsity import knee
from support import hard


@pytest.mark.parametrize("percent", [30, 50, 70])
def test_the_solver_finds_the_global_threshold(percent: int) -> None:
    weights = [scale * hard.normal(40, 50, seed=i).float() for i, scale in enumerate((1.0, 0.5, 2.0))]
    families = [METHODS["essential-sparsity"].entry(w, Statistics()) for w in weights]
    sites = [
        Candidates(np.array([*(c.parameters for c in f.costs), w.numel()], float), np.array([*f.errors.tolist(), 0.0]))
        for f, w in zip(families, weights, strict=True)
    ]
    budget = percent * sum(w.numel() for w in weights) / 100
    chosen = ALLOCATIONS[METHODS["essential-sparsity"].allocation].pick(sites, budget)
    threshold = torch.cat([w.abs().flatten() for w in weights]).quantile(1 - percent / 100)
    for w, family, choice in zip(weights, families, chosen, strict=True):
        share = 100 * float((w.abs() >= threshold).float().mean())
        assert abs([*family.sizes, 100][choice] - share) <= 5


def test_the_knee_by_hand() -> None:
    dense = torch.tensor([2.0, 4.0])
    losses = torch.tensor([[2.01, 4.01], [2.02, 4.0], [2.3, 4.1], [2.0, 4.0]])
    found = knee([0.1, 0.2, 0.3, 0.4], losses, dense, draws=200)
    assert found[0] == 0.2  # 0.4 is behind a sparsity that harmed
    assert len(found) == 201
    # samples of the first text twice fail at 0.3 and keep 0.2; of the second twice 0.3 fails too
    assert set(found.tolist()) == {0.2}
    assert knee([0.5], torch.tensor([[3.0, 6.0]]), dense, draws=3).tolist() == [0.0] * 4
    assert torch.equal(found, knee([0.1, 0.2, 0.3, 0.4], losses, dense, draws=200))


def test_texts_that_differ_blur_the_knee() -> None:
    dense = torch.ones(2)
    losses = torch.tensor([[1.0, 1.0], [1.0, 1.1]])
    found = knee([0.3, 0.6], losses, dense, draws=400)
    assert found[0] == 0.3
    assert abs(float((found[1:] == 0.6).double().mean()) - 0.25) < 0.08  # the first text twice


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be of shape \(2, 3\), got \(3, 2\)"):
        knee([0.1, 0.2], torch.ones(3, 2), torch.ones(3))
    with pytest.raises(ValueError, match="sparsities must ascend"):
        knee([0.2, 0.1], torch.ones(2, 3), torch.ones(3))
