"""Matrices that changed in a known way."""

from __future__ import annotations

import torch
from torch import Tensor

from support import hard


def planted(count: int, strength: float = 2.0) -> tuple[Tensor, Tensor]:
    """A base of half its outputs and part of its inputs, and the same with strong directions where it had none."""
    base = torch.zeros(60, 40).double()
    base[:30] = hard.with_spectrum(30, 40, torch.linspace(10, 1, 30).double())
    u, v = torch.zeros(60, count).double(), hard.orthogonal(40, 1)[:, 30 : 30 + count]
    u[30:] = hard.orthogonal(30, 8)[:, :count]
    return base, base + 10 * strength * u @ v.T
