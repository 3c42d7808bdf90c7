"""Bits that vectors cost up to an error, as a whole and in groups, and memberships in groups that are balanced."""

from __future__ import annotations

import torch
from torch import Tensor


def coding_rate(z: Tensor, error: float) -> Tensor:
    """log det(I + d / (n e^2) Z^T Z) / 2 of n vectors z (n, d), in nats, by the smaller side (Ma et al. 2007)."""
    n, d = z.shape
    gram = z.T @ z if d <= n else z @ z.T
    found: Tensor = torch.linalg.slogdet(torch.eye(len(gram), dtype=z.dtype) + gram * (d / (n * error**2)))[1] / 2
    return found


def grouped_rate(z: Tensor, membership: Tensor, error: float) -> Tensor:
    """sum_j (1/n) log det(I + d / e^2 sum_i g_ij z_i z_i^T) / 2: each vector's group has its own code.

    Args:
        z: (n, d).
        membership: g (n, m), columns that sum to 1, each a group; of a doubly stochastic one m is n.
        error: e.
    """
    d, weights = z.shape[1], membership.shape[1]
    pairs = torch.einsum("ni,nj->nij", z, z).flatten(1)
    moments = (membership.T @ pairs).reshape(weights, d, d) * (d / error**2)
    found: Tensor = torch.linalg.slogdet(torch.eye(d, dtype=z.dtype) + moments)[1].mean() / 2
    return found


def doubly_stochastic(similarity: Tensor, temperature: float, steps: int = 20) -> Tensor:
    """exp(S / t + u_i + u_j) of a symmetric S (n, n) whose rows and columns sum to 1, by logarithms.

    It is the plan of least sum of g log g - g S / t (Cuturi 2013). A step is the mean of u and what plain alternation
    would make of it, -log sum_j exp(S_ij / t + u_j), which would swing.
    """
    logs = similarity / temperature
    u = torch.zeros(len(logs), dtype=logs.dtype)
    for _ in range(steps):
        u = (u - torch.logsumexp(logs + u, dim=1)) / 2
    plan = torch.exp(logs + u[:, None] + u)
    return plan / plan.sum(dim=0)
