"""Metrics of every kind, and explicit square roots."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.metrics import Side
from support import hard


def root(side: Side, n: int) -> Tensor:
    """The symmetric square root of a side as a matrix (n, n)."""
    if side is None:
        return torch.eye(n, dtype=torch.float64)
    if side.ndim == 1:
        return side.double().sqrt().diag()
    values, vectors = torch.linalg.eigh(side.double())
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def sides(n: int, seed: int) -> dict[str, Side]:
    x = hard.normal(3 * n, n, seed=seed)
    return {"none": None, "vector": x[0].square(), "matrix": x.T @ x / len(x)}
