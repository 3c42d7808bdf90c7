"""Copies of one matrix along the diagonal: the Kronecker product of an identity with it."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.structures._copies import Copies
from eckart.structures.base import structure
from eckart.structures.transposed import apply_transposed


@structure("repeated")
class Repeated(Copies):
    """W = I kron matrix: the input is cut into `copies` equal parts, each of which meets the same matrix.

    Args:
        matrix: (out / copies, in / copies).
        copies: size of the identity.
    """

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.matrix(self.parts(x))
        return y.flatten(-2)

    def parts(self, x: Tensor) -> Tensor:
        """x (..., copies * n) as (..., copies, n): what each of the copies meets."""
        return x.reshape(*x.shape[:-1], self.copies, x.shape[-1] // self.copies)

    def to_dense(self) -> Tensor:
        dense = self.matrix.to_dense().contiguous()
        return torch.kron(torch.eye(self.copies, dtype=dense.dtype, device=dense.device), dense)


@apply_transposed.register
def _(matrix: Repeated, x: Tensor) -> Tensor:
    return apply_transposed(matrix.matrix, matrix.parts(x)).flatten(-2)
