"""Subspaces that a gradient is projected onto, on its shorter side, and bases that are the same for all of a size."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor


def top_subspace(grad: Tensor, rank: int, before: Tensor | None = None) -> Tensor | None:
    """The singular vectors of the largest singular values of G, on its shorter side.

    Args:
        grad: G (m, n).
        rank: at most min(m, n).
        before: P of an earlier gradient; a vector that turned away from the one in its place there is taken with the
            other sign, so that moments along it keep theirs.

    Returns:
        P (min(m, n), rank) with orthonormal columns, in the dtype of G; None for a gradient of zeros, or one with NaN
        or Inf entries, which has none.
    """
    side = grad if grad.shape[0] <= grad.shape[1] else grad.T
    if not torch.isfinite(side).all() or not side.any():
        return None
    scaled = (side / side.abs().amax()).cpu().double()
    top = _last_eigenvectors(scaled @ scaled.T, rank).flip(1).to(grad.dtype).to(grad.device)
    if before is not None and before.shape == top.shape:
        top *= torch.where((top * before).sum(0) < 0, -1.0, 1.0)
    return top


def _last_eigenvectors(symmetric: Tensor, count: int) -> Tensor:
    """The eigenvectors of the largest eigenvalues, in rising order; where they are few the others are not computed."""
    size = len(symmetric)
    if 2 * count > size:
        every: Tensor = torch.linalg.eigh(symmetric).eigenvectors
        return every[:, -count:]
    _, found = eigh(
        symmetric.numpy(), subset_by_index=(size - count, size - 1), driver="evr", check_finite=False, overwrite_a=True
    )
    return torch.from_numpy(np.ascontiguousarray(found))


def project(grad: Tensor, basis: Tensor) -> Tensor:
    """P^T G (r, n) where G (m, n) has no more rows than columns, else G P (m, r)."""
    return basis.T @ grad if grad.shape[0] <= grad.shape[1] else grad @ basis


def back(part: Tensor, basis: Tensor, shape: torch.Size) -> Tensor:
    """P R, or R P^T: what `project` gave, in the space of G, whose shape it is."""
    return basis @ part if shape[0] <= shape[1] else part @ basis.T


def channel_norms(part: Tensor, shape: torch.Size) -> Tensor:
    """The norm of what `project` gave for every line of G along its longer side: (1, n), or (m, 1)."""
    norms: Tensor = torch.linalg.vector_norm(part, dim=0 if shape[0] <= shape[1] else 1, keepdim=True)
    return norms


def grown_by(part: Tensor, state: dict[str, Tensor], limit: float = 1.01) -> Tensor:
    """A tensor whose norm is at most `limit` times what it was in the step before, as `norm` of the state remembers."""
    norm = torch.linalg.vector_norm(part).reshape(1)
    if "norm" in state and bool(state["norm"] > 0):
        part = part * (limit * state["norm"] / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1)
        norm = torch.minimum(norm, limit * state["norm"])
    state["norm"] = norm
    return part


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II: columns sqrt(2 / k) cos(pi (2 j + 1) i / 2 k), the first times sqrt(1/2); (k, k)."""
    place = torch.arange(size, dtype=torch.float64, device="cpu")
    basis: Tensor = torch.cos(math.pi / (2 * size) * (2 * place[:, None] + 1) * place) * (2 / size) ** 0.5
    basis[:, 0] *= 0.5**0.5
    return basis


def random_basis(size: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix (k, k), float64, evenly drawn."""
    drawn = torch.randn(size, size, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(drawn)
    basis: Tensor = q * r.diagonal().sign()
    return basis
