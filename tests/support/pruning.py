"""Inputs for pruning, and pruned matrices."""

from __future__ import annotations

import torch
from torch import Tensor

import eckart
from eckart import METHODS, Statistics
from support import hard

UNSTRUCTURED = ("magnitude", "wanda", "sparsegpt")

SEMI = tuple(f"{name}-semi" for name in UNSTRUCTURED)


def correlated(n: int, seed: int = 1) -> Tensor:
    """E[x x^T] of correlated inputs of different sizes."""
    x = hard.normal(4 * n, n, seed=seed) @ (torch.eye(n).double() + n**-0.5 * hard.normal(n, n, seed=seed + 1))
    x = x * 2 ** hard.normal(n, seed=seed + 2)
    return x.T @ x / len(x)


def fitted(name: str, weight: Tensor, moment: Tensor, size: int) -> Tensor:
    statistics = Statistics(1, input_second_moment=moment)
    structure = eckart.fit(weight, name, statistics=statistics, **{METHODS[name].size: size})
    structure.check_values()
    return structure.to_dense().detach()


def random_mask(out: int, columns: int, density: float, seed: int = 0) -> Tensor:
    return torch.rand(out, columns, generator=torch.Generator().manual_seed(seed)) < density
