"""k-means."""

from __future__ import annotations

import torch

from eckart.linalg.clustering import k_means
from support import hard


def test_k_means_finds_what_is_apart() -> None:
    centres = 10 * hard.normal(5, 4, seed=1)
    truth = torch.arange(40) % 5
    label = k_means(centres[truth] + 0.1 * hard.normal(40, 4, seed=2), 5, torch.Generator().manual_seed(0))
    assert torch.equal(label[:, None] == label, truth[:, None] == truth)
    same = k_means(torch.ones(6, 3).double(), 4, torch.Generator().manual_seed(0))
    assert same.unique().numel() == 1
