"""A tensor of four modes as a sum of outer products (CP), by alternating least squares."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

STARTS = 3
TRIAL = 5
SWEEPS = 60
GAIN = 1e-5
"""Sweeps end when the squared error falls by less than this share of the squared norm."""
DAMPING = 1e-4
"""How strongly a factor is held to its last value, relative to the mean eigenvalue of its normal equations."""


def alternating(tensor: Tensor, rank: int, seed: int = 0) -> list[Tensor]:
    """The best factors (n_k, rank), one for each mode, of `STARTS` random starts carried on for `SWEEPS` sweeps.

    Args:
        tensor: four modes, float64, entries near 1.
        rank: at least 1.
        seed: of the starts.
    """
    if not tensor.any():
        return [tensor.new_zeros(n, rank) for n in tensor.shape]
    generator = torch.Generator().manual_seed(seed)
    starts = []
    for _ in range(STARTS):
        start = [torch.randn(n, rank, generator=generator, dtype=tensor.dtype) for n in tensor.shape]
        starts.append(_descend(tensor, start, TRIAL))
    return _descend(tensor, min(starts, key=lambda found: found[1])[0], SWEEPS)[0]


def _descend(tensor: Tensor, factors: list[Tensor], sweeps: int) -> tuple[list[Tensor], float]:
    """The best factors met on the way, and their squared error."""
    whole = float(tensor.square().sum())
    best, least = factors, inf
    for _ in range(sweeps):
        factors, error = sweep(tensor, factors)
        gain = least - error
        if gain > 0:
            best, least = factors, error
        if gain <= GAIN * whole:
            break
    return best, least


def sweep(tensor: Tensor, factors: list[Tensor]) -> tuple[list[Tensor], float]:
    """Every factor in turn, and the squared error with them.

    The match of a factor is the sum over the other modes of W times the outer products of their columns.
    """
    a, b, y, x = factors
    w = tensor.flatten(2)
    s = outer(y, x)
    a = updated(a, w.flatten(1) @ outer(b, s), (b, y, x))
    b = updated(b, w.transpose(0, 1).flatten(1) @ outer(a, s), (a, y, x))
    both = ((a.T @ w.flatten(1)).reshape(-1, *w.shape[1:]) * b.T[..., None]).sum(1).reshape(-1, len(y), len(x))
    y = updated(y, torch.einsum("ryx,xr->yr", both, x), (a, b, x))
    matched = torch.einsum("ryx,yr->xr", both, y)
    x = updated(x, matched, (a, b, y))
    norm = (gram(a) * gram(b) * gram(y) * gram(x)).sum()
    error = tensor.square().sum() - 2 * (matched * x).sum() + norm
    norms = torch.stack([torch.linalg.vector_norm(f, dim=0) for f in (a, b, y, x)])
    even = norms.log().mean(0).exp()
    levelled = [f * torch.where(even > 0, even / n, 0.0) for f, n in zip((a, b, y, x), norms, strict=True)]
    return levelled, float(error)


def updated(factor: Tensor, match: Tensor, others: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """F with F (V + d I) = T + d F_old: V the product of the others' Gram matrices, T the match, d the damping."""
    first, second, third = others
    normal = gram(first) * gram(second) * gram(third)
    held = DAMPING * normal.diagonal().mean()
    if not held > 0:
        return factor
    normal.diagonal().add_(held)
    return torch.cholesky_solve((match + held * factor).T, torch.linalg.cholesky(normal)).T


def gram(factor: Tensor) -> Tensor:
    return factor.T @ factor


def outer(first: Tensor, second: Tensor) -> Tensor:
    """The outer products of the columns of (n, r) and (m, r), flattened: (n m, r)."""
    return (first[:, None] * second).flatten(0, 1)
