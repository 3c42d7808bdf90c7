"""Subspaces that a gradient is projected onto, and what becomes of moments when they change."""

from __future__ import annotations

import torch
from torch import Tensor


def top_subspace(grad: Tensor, rank: int) -> Tensor | None:
    """The singular vectors of the largest singular values of G, on its shorter side.

    Args:
        grad: G (m, n).
        rank: at most min(m, n).

    Returns:
        P (min(m, n), rank) with orthonormal columns, in the dtype of G; None for a gradient of zeros, or one with NaN
        or Inf entries, which has none.
    """
    side = grad if grad.shape[0] <= grad.shape[1] else grad.T
    if not torch.isfinite(side).all() or not side.any():
        return None
    scaled = (side / side.abs().amax()).cpu().double()
    vectors = torch.linalg.eigh(scaled @ scaled.T).eigenvectors
    top: Tensor = vectors[:, -rank:].flip(1).to(grad.dtype).to(grad.device)
    return top


def project(grad: Tensor, basis: Tensor) -> Tensor:
    """P^T G (r, n) where G (m, n) has no more rows than columns, else G P (m, r)."""
    return basis.T @ grad if grad.shape[0] <= grad.shape[1] else grad @ basis


def back(part: Tensor, basis: Tensor, shape: torch.Size) -> Tensor:
    """P R, or R P^T: what `project` gave, in the space of G, whose shape it is."""
    return basis @ part if shape[0] <= shape[1] else part @ basis.T
