"""A tensor of four modes as a smaller one between bases of its first two modes (Tucker-2)."""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 20
GAIN = 1e-6
"""Iterations end when the squared error falls by less than this share of the squared norm."""


def modes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The unfoldings (out, ...) and (channels, ...) of filters."""
    return tensor.flatten(1), tensor.transpose(0, 1).flatten(1)


def tails(matrix: Tensor) -> Tensor:
    """Squared singular values that are cut off at rank 0, 1, ..., n of a matrix (n, m): (n + 1,), float64."""
    values = torch.linalg.eigvalsh(matrix @ matrix.T).clamp_min(0)
    return torch.cat([values.new_zeros(1), values.cumsum(0)]).flip(0)


def hooi(tensor: Tensor, p: int, q: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best U (out, p), G (p, q, height, width), V (channels, q) that the iteration meets; U and V orthonormal.

    The error is ||W||^2 - ||G||^2, so each half step takes the leading vectors of W projected on the other side.
    """
    (rows, columns), whole = modes(tensor), float(tensor.square().sum())
    u, v = leading(rows, p), leading(columns, q)
    best, most = (u, v), -1.0
    for _ in range(ITERATIONS):
        energy = float(core(tensor, u, v).square().sum())
        gain = energy - most
        if gain > 0:
            best, most = (u, v), energy
        if gain <= GAIN * whole:
            break
        u = leading(torch.einsum("ocyx,cq->oqyx", tensor, v).flatten(1), p)
        v = leading(torch.einsum("ocyx,op->cpyx", tensor, u).flatten(1), q)
    return best[0], core(tensor, *best), best[1]


def leading(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors of a matrix (n, m): (n, rank); all of space where rank is n."""
    if rank == len(matrix):
        return torch.eye(rank, dtype=matrix.dtype)
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors
    return vectors.flip(1)[:, :rank]


def core(tensor: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """G = W projected on both sides."""
    g: Tensor = torch.einsum("oqyx,op->pqyx", torch.einsum("ocyx,cq->oqyx", tensor, v), u)
    return g
