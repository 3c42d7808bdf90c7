"""A tensor as a sum of outer products (CP), by alternating least squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from eckart.linalg.dimension_tree import visit_modes

STARTS = 3
TRIAL = 5
SWEEPS = 60
GAIN = 1e-5
"""Sweeps end when the squared error falls by less than this share of the squared norm."""
DAMPING = 1e-4
"""How strongly a factor is held to its last value, relative to the mean eigenvalue of its normal equations."""


class Descent(NamedTuple):
    """The best factors (n_k, r) that were met, their squared error, that of every sweep, and whether sweeps ended."""

    factors: list[Tensor]
    error: float
    history: list[float]
    settled: bool


def alternating(tensor: Tensor, rank: int, seed: int = 0) -> list[Tensor]:
    """The best factors (n_k, rank), one for each mode, of `STARTS` random starts carried on for `SWEEPS` sweeps.

    Args:
        tensor: two modes or more, float64, entries near 1.
        rank: at least 1.
        seed: of the starts.
    """
    if not tensor.any():
        return [tensor.new_zeros(n, rank) for n in tensor.shape]
    generator = torch.Generator().manual_seed(seed)
    return descend(tensor, best_start(tensor, rank, generator), SWEEPS).factors


def best_start(tensor: Tensor, rank: int, generator: torch.Generator, damping: float = DAMPING) -> list[Tensor]:
    """The best of `STARTS` random starts after `TRIAL` sweeps."""
    starts = []
    for _ in range(STARTS):
        start = [torch.randn(n, rank, generator=generator, dtype=tensor.dtype) for n in tensor.shape]
        starts.append(descend(tensor, start, TRIAL, damping=damping))
    return min(starts, key=lambda found: found.error).factors


def descend(
    tensor: Tensor, factors: list[Tensor], sweeps: int, *, damping: float = DAMPING, gain: float = GAIN
) -> Descent:
    """Sweeps until the squared error falls by less than `gain` of the squared norm."""
    whole = float(tensor.square().sum())
    best, least, history = factors, inf, list[float]()
    for _ in range(sweeps):
        factors, error = sweep(tensor, factors, damping, whole)
        history.append(error)
        gained = least - error
        if gained > 0:
            best, least = factors, error
        if gained <= gain * whole:
            return Descent(best, least, history, True)
    return Descent(best, least, history, False)


def sweep(
    tensor: Tensor, factors: list[Tensor], damping: float = DAMPING, whole: float | None = None
) -> tuple[list[Tensor], float]:
    """Every factor in turn, brought to one norm a term afterwards, and the squared error with them.

    The match of a factor is the sum over the other modes of W times the outer products of their columns; all of them
    come from a tree over the modes (`visit_modes`), whose nodes are (r, n_i, n_j, ...); `whole` is W's squared norm.
    """
    found = list(factors)
    grams = [gram(f) for f in found]
    matched = 0.0

    def update(mode: int, node: Tensor) -> None:
        nonlocal matched
        normal = reduce(torch.mul, (g for k, g in enumerate(grams) if k != mode))
        found[mode] = updated(found[mode], node.T, normal, damping)
        grams[mode] = gram(found[mode])
        matched = float((node.T * found[mode]).sum())

    visit_modes(tensor, tuple(tensor.shape), range(tensor.ndim), contraction(tensor, found), update)
    whole = float(tensor.square().sum()) if whole is None else whole
    error = whole - 2 * matched + float(reduce(torch.mul, grams).sum())
    norms = torch.stack([torch.linalg.vector_norm(f, dim=0) for f in found])
    even = norms.log().mean(0).exp()
    return [f * torch.where(even > 0, even / n, 0.0) for f, n in zip(found, norms, strict=True)], error


def contraction(tensor: Tensor, factors: list[Tensor]) -> Callable[[Tensor, range, range], Tensor]:
    """For `visit_modes`: nodes (r, n_i, n_j, ...) less a range of modes, with the columns that the list has by then."""

    def contract(node: Tensor, modes: range, gone: range) -> Tensor:
        columns = reduce(outer, (factors[k] for k in gone))
        shape = [len(factors[k]) for k in modes if k not in gone]
        if node is tensor:
            flat = node.reshape(len(columns), -1) if gone.start == modes.start else node.reshape(-1, len(columns)).T
            return (columns.T @ flat).reshape(-1, *shape)
        first = gone.start == modes.start
        flat = node.reshape(len(node), len(columns), -1) if first else node.reshape(len(node), -1, len(columns)).mT
        return (columns.T[:, None] @ flat).reshape(-1, *shape)

    return contract


def updated(factor: Tensor, match: Tensor, normal: Tensor, damping: float = DAMPING) -> Tensor:
    """F with F (V + d I) = T + d F_old: V the product of the others' Gram matrices, T the match, d the damping."""
    size = normal.diagonal().mean()
    if not size > 0:
        return factor
    held = damping * size
    normal = normal + held * torch.eye(len(normal), dtype=normal.dtype)
    lower, failed = torch.linalg.cholesky_ex(normal)
    if failed:
        found: Tensor = torch.linalg.lstsq(normal, (match + held * factor).T, driver="gelsd").solution
        return found.T
    return torch.cholesky_solve((match + held * factor).T, lower).T


def gram(factor: Tensor) -> Tensor:
    return factor.T @ factor


def outer(first: Tensor, second: Tensor) -> Tensor:
    """The outer products of the columns of (n, r) and (m, r), flattened: (n m, r)."""
    return (first[:, None] * second).flatten(0, 1)
