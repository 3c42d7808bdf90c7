"""Copies of one matrix, interleaved: the Kronecker product with an identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.structures._copies import Copies
from eckart.structures.base import structure
from eckart.structures.transposed import apply_transposed


@structure("interleaved")
class Interleaved(Copies):
    """W = matrix kron I: with the input as rows of `copies` entries, every column meets the same matrix.

    Args:
        matrix: (out / copies, in / copies).
        copies: size of the identity.
    """

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.matrix(self.columns(x))
        return y.mT.flatten(-2)

    def columns(self, x: Tensor) -> Tensor:
        """x (..., n * copies) as (..., copies, n): what each of the copies meets."""
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.copies, self.copies).mT

    def to_dense(self) -> Tensor:
        dense = self.matrix.to_dense().contiguous()
        return torch.kron(dense, torch.eye(self.copies, dtype=dense.dtype, device=dense.device))

    def rows(self, index: Tensor) -> Tensor:
        index = index.long()
        picked = self.matrix.rows(index // self.copies)
        place = F.one_hot(index % self.copies, self.copies).to(picked)
        return (picked[..., None] * place[..., None, :]).flatten(-2)


@apply_transposed.register
def _(matrix: Interleaved, x: Tensor) -> Tensor:
    return apply_transposed(matrix.matrix, matrix.columns(x)).mT.flatten(-2)
