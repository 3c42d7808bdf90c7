"""A tensor as a smaller one between bases of its modes (Tucker), of some modes or all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eckart.linalg.dimension_tree import visit_modes

ITERATIONS = 20
GAIN = 1e-6
"""Iterations end when the squared error falls by less than this share of the squared norm."""
SQUARED = 1e-10
"""A share of the largest eigenvalue of a Gram matrix, below which its vectors are those of rounding."""


class TuckerForm(NamedTuple):
    """Core (r_1, ..., r_K), orthonormal bases (n_k, r_k), the core's energy by iterations, whether they ended."""

    core: Tensor
    bases: list[Tensor]
    energies: list[float]
    settled: bool


def modes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The unfoldings (out, ...) and (channels, ...) of filters."""
    return unfolded(tensor, 0), unfolded(tensor, 1)


def unfolded(tensor: Tensor, mode: int) -> Tensor:
    """The fibres of a mode as columns: (n_mode, product of the others)."""
    return tensor.movedim(mode, 0).flatten(1)


def tails(matrix: Tensor) -> Tensor:
    """Squared singular values that are cut off at rank 0, 1, ..., n of a matrix (n, m): (n + 1,), float64."""
    values = torch.linalg.eigvalsh(matrix @ matrix.T).clamp_min(0)
    return torch.cat([values.new_zeros(1), values.cumsum(0)]).flip(0)


def hooi(tensor: Tensor, p: int, q: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best U (out, p), G (p, q, height, width), V (channels, q) that the iteration meets; U and V orthonormal."""
    found = orthogonal_iteration(tensor, (p, q, *tensor.shape[2:]))
    return found.bases[0], found.core, found.bases[1]


def orthogonal_iteration(
    tensor: Tensor, ranks: Sequence[int], *, iterations: int = ITERATIONS, gain: float = GAIN
) -> TuckerForm:
    """The best core and bases that the higher-order orthogonal iteration meets (De Lathauwer et al. 2000).

    The error is ||W||^2 - ||G||^2, so each step takes the leading vectors of W projected on the other modes' bases. It
    starts from bases of one mode after the other, each of what the ones before left (Vannieuwenhoven et al. 2012).

    Args:
        tensor: (n_1, ..., n_K), float64.
        ranks: r_k, none above the product of the others; a mode of r_k = n_k is left as it is.
        iterations: at most; 0 for the start.
        gain: share of the squared norm below which they end.
    """
    whole, rest, bases = float(tensor.square().sum()), tensor, list[Tensor]()
    for mode, rank in enumerate(ranks):
        bases.append(leading(unfolded(rest, mode), rank))
        rest = projected(rest, mode, bases[mode])
    best, energies = TuckerForm(rest, list(bases), [], False), [float(rest.square().sum())]
    most = energies[0]

    def contract(node: Tensor, _: range, gone: range) -> Tensor:
        for mode in sorted(gone, key=lambda k: ranks[k] / tensor.shape[k]):
            node = projected(node, mode, bases[mode])
        return node

    def update(mode: int, node: Tensor) -> None:
        nonlocal rest
        bases[mode] = leading(unfolded(node, mode), ranks[mode])
        rest = projected(node, mode, bases[mode])

    settled = False
    for _ in range(iterations):
        visit_modes(tensor, tuple(tensor.shape), range(tensor.ndim), contract, update)
        energies.append(float(rest.square().sum()))
        gained = energies[-1] - most
        if gained > 0:
            best, most = TuckerForm(rest, list(bases), [], False), energies[-1]
        if gained <= gain * whole:
            settled = True
            break
    return TuckerForm(best.core, best.bases, energies, settled)


def leading(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors of a matrix (n, m): (n, rank); all of space where rank is n.

    By the Gram matrix, which knows them to half of the digits; where the last is smaller than that, by the SVD.
    """
    if rank == len(matrix):
        return torch.eye(rank, dtype=matrix.dtype)
    wide = len(matrix) <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    if rank <= len(values) and values[-rank] > SQUARED * values[-1]:
        found: Tensor = vectors.flip(1)[:, :rank]
        if not wide:
            found = torch.linalg.qr(matrix @ found)[0]
        return found
    left: Tensor = torch.linalg.svd(matrix, full_matrices=rank > matrix.shape[1])[0]
    return left[:, :rank]


def projected(tensor: Tensor, mode: int, basis: Tensor) -> Tensor:
    """W x_mode U^T: (..., r, ...) of (..., n, ...); W itself where U is square, as it is the identity then."""
    if basis.shape[0] == basis.shape[1]:
        return tensor
    found: Tensor = torch.tensordot(basis, tensor, ([0], [mode]))
    return found.movedim(0, mode)


def core(tensor: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """G = W projected on both sides."""
    return projected(projected(tensor, 0, u), 1, v)
