"""Adapters in the form of an SVD, `left diag(values) right`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.adapters.contract import Paths
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal
from eckart.structures.scaled import Scaled


def triplets(left: Tensor, values: Tensor, right: Tensor) -> Chain:
    """W = left diag(values) right: left (out, r), values (r,), right (r, in)."""
    return Chain(Dense(left.contiguous()), Diagonal(values.contiguous()), Dense(right.contiguous()))


def leaves(path: StructuredMatrix) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    """(left, values, right) of `triplets`, whatever it is scaled by."""
    while isinstance(path, Scaled):
        path = path.matrix
    left, values, right = path.parameters()
    return left, values, right


def frozen(structure: StructuredMatrix) -> StructuredMatrix:
    """The structure, no leaf of which trains."""
    structure.requires_grad_(False)
    return structure


def orthonormality(paths: Paths) -> Tensor:
    """The mean of `||left^T left - I||_F` and `||right right^T - I||_F` over all matrices."""
    terms = []
    for left, _, right in map(leaves, paths.values()):
        identity = torch.eye(len(right), dtype=right.dtype, device=right.device)
        terms += [torch.linalg.matrix_norm(gram - identity) for gram in (left.T @ left, right @ right.T)]
    return torch.stack(terms).mean()
