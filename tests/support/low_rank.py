"""What the tests of low-rank papers share: shapes, explicit square roots, weighted decompositions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart import Statistics


def weighted(weight: Tensor, left: Tensor, right: Tensor, rank: int) -> Tensor:
    """left^-1 (left W right)_r right^-1 by the SVD."""
    u, s, vh = torch.linalg.svd(left @ weight @ right, full_matrices=False)
    return torch.linalg.solve(left, u[:, :rank] * s[:rank] @ vh[:rank]) @ torch.linalg.inv(right)


def square_root(moment: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(moment)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


SHAPES = pytest.mark.parametrize("shape", [(10, 14), (14, 10), (12, 12)], ids=str)


def built(name: str, weight: Tensor, statistics: Statistics, rank: int) -> Tensor:
    return eckart.fit(weight, name, rank=rank, statistics=statistics).to_dense().detach()
