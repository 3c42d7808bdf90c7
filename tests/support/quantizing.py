"""Weights and inputs for quantizers."""

from __future__ import annotations

import torch
from torch import Tensor


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def correlated(n: int, samples: int = 400, seed: int = 1) -> Tensor:
    """E[x x^T] of inputs with a decaying spectrum and a few that are large."""
    x = random(samples, n, seed=seed, dtype=torch.float64) @ random(n, n, seed=seed + 1, dtype=torch.float64)
    x = x * torch.logspace(0, -2, n, dtype=torch.float64)[torch.randperm(n, generator=torch.Generator().manual_seed(2))]
    return x.T @ x / samples
