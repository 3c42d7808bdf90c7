"""Square structures for whoever solves with them: symmetric positive definite ones, and others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eckart.structures import (
    BlockDiagonal,
    Chain,
    Circulant,
    Cosine,
    Dense,
    Diagonal,
    Hadamard,
    Householder,
    Identity,
    Interleaved,
    Kronecker,
    Permutation,
    Repeated,
    Scaled,
    StructuredMatrix,
    Sum,
    Toeplitz,
    kronecker_sum,
    low_rank,
)
from support.hard import normal


def gram(n: int, seed: int = 0) -> Tensor:
    """A well conditioned covariance (n, n)."""
    x = normal(n, 2 * n, seed=seed)
    return x @ x.T / n


def blocks(b: int, n: int) -> Tensor:
    return torch.stack([gram(n, seed) for seed in range(b)])


def thin(n: int, r: int, seed: int = 3) -> Chain:
    """F F^T."""
    f = normal(n, r, seed=seed)
    return low_rank(f, f.T.contiguous())


def bump(n: int) -> Tensor:
    """The first column of a covariance that falls with the distance on a circle."""
    distance = torch.minimum(torch.arange(n), n - torch.arange(n)).double()
    return torch.exp(-distance)


def jordan(n: int, value: float) -> Tensor:
    """One eigenvalue n times, with one eigenvector."""
    return value * torch.eye(n, dtype=torch.float64) + torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)


def sandwich(first: StructuredMatrix, last: StructuredMatrix) -> Chain:
    return Chain(first, Diagonal(torch.arange(1.0, first.shape[0] + 1, dtype=torch.float64)), last)


DEFINITE: dict[str, Callable[[], StructuredMatrix]] = {
    "dense": lambda: Dense(gram(6)),
    "dense-1": lambda: Dense(gram(1)),
    "identity": lambda: Identity(5),
    "diagonal": lambda: Diagonal(gram(6).diagonal().clone()),
    "blocks": lambda: BlockDiagonal(blocks(3, 4)),
    "kronecker": lambda: Kronecker(gram(3), gram(4, 1)),
    "repeated": lambda: Repeated(Dense(gram(3)), copies=2),
    "interleaved": lambda: Interleaved(Kronecker(gram(2), gram(2, 1)), copies=3),
    "kronecker-sum": lambda: kronecker_sum(Dense(gram(3)), Dense(gram(4, 1))),
    "kronecker-sum-of-a-circulant": lambda: kronecker_sum(Circulant(bump(5)), Diagonal(gram(2).diagonal().clone())),
    "kronecker-plus-identity": lambda: Sum(Kronecker(gram(3), gram(2)), Scaled(Identity(6), scale=0.5)),
    "circulant": lambda: Circulant(bump(7)),
    "circulant-even": lambda: Circulant(bump(8)),
    "circulants": lambda: Sum(Circulant(bump(7)), Circulant(2 * bump(7))),
    "toeplitz": lambda: Toeplitz(torch.exp(-0.7 * (torch.arange(11).double() - 5).abs()), columns=6),
    "walsh": lambda: sandwich(Hadamard(8), Hadamard(8)),
    "cosine": lambda: sandwich(Cosine(5, adjoint=True), Cosine(5)),
    "reflected": lambda: sandwich(Householder(normal(2, 6)), Householder(normal(2, 6).flip(0))),
    "reordered": lambda: sandwich(Permutation(torch.tensor([2, 0, 1])), Permutation(torch.tensor([1, 2, 0]))),
    "scaled": lambda: Scaled(Dense(gram(4)), scale=0.3),
    "low-rank-plus-diagonal": lambda: Sum(
        Diagonal(gram(9).diagonal().clone()), thin(9, 2), Scaled(thin(9, 1, 5), scale=2)
    ),
    "low-rank-plus-identity": lambda: Sum(thin(9, 2), Identity(9)),
    "low-rank-plus-blocks": lambda: Sum(BlockDiagonal(blocks(2, 4)), thin(8, 2)),
    "dense-plus-diagonal": lambda: Sum(Dense(gram(5)), Diagonal(torch.ones(5, dtype=torch.float64)), Identity(5)),
    "bf16": lambda: Kronecker(torch.eye(3).bfloat16() * 2, torch.eye(2).bfloat16()),
}
OTHERS: dict[str, Callable[[], StructuredMatrix]] = {
    "dense": lambda: Dense(normal(6, 6)),
    "blocks": lambda: BlockDiagonal(normal(3, 4, 4)),
    "kronecker": lambda: Kronecker(normal(3, 3), normal(4, 4)),
    "kronecker-sum": lambda: kronecker_sum(Dense(normal(3, 3)), Dense(normal(4, 4))),
    "kronecker-sum-without-eigenvectors": lambda: kronecker_sum(Dense(jordan(3, 1.0)), Dense(jordan(2, 2.0))),
    "kronecker-sum-of-a-toeplitz": lambda: Sum(
        kronecker_sum(Toeplitz(normal(5), columns=3), Dense(gram(2))), Scaled(Identity(6), scale=0.5)
    ),
    "kronecker-plus-identity": lambda: Sum(Kronecker(normal(3, 3), normal(4, 4)), Scaled(Identity(12), scale=0.5)),
    "permutation": lambda: Permutation(torch.tensor([2, 0, 1, 4, 3, 5])),
    "hadamard": lambda: Hadamard(8),
    "cosine": lambda: Cosine(5),
    "householder": lambda: Householder(normal(3, 6)),
    "circulant": lambda: Circulant(normal(6)),
    "toeplitz": lambda: Toeplitz(normal(11) + 9 * (torch.arange(11) == 5), columns=6),
    "scaled": lambda: Scaled(Dense(normal(4, 4)), scale=-0.3),
    "chain": lambda: Chain(Hadamard(4), Dense(normal(4, 4)), Diagonal(normal(4))),
    "low-rank-plus-diagonal": lambda: Sum(Diagonal(normal(9)), low_rank(normal(9, 2), normal(2, 9, seed=1))),
    "low-rank-plus-permutation": lambda: Sum(
        Permutation(torch.tensor([1, 2, 3, 4, 0])), low_rank(normal(5, 2), normal(2, 5, seed=1))
    ),
}
"""Not symmetric, or not definite."""
