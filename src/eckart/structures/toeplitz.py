"""Matrices that are constant along their diagonals, applied by Fourier transforms."""

from __future__ import annotations

from math import ceil, log2

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.structures._checks import float_leaf, size_option
from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.transposed import apply_transposed


def convolved(kernel: Tensor, x: Tensor, size: int, *, adjoint: bool = False) -> Tensor:
    """The circular convolution of a kernel with every vector of x, or its correlation where `adjoint`.

    Args:
        kernel: (k,), k at most `size`.
        x: (..., n), n at most `size`; both are padded with zeros.
        size: of the circle.

    Returns:
        (..., size), in the dtype of x; 16-bit numbers are computed in float32.
    """
    if x.numel() == 0:  # FFT libraries refuse an empty batch
        return x.new_zeros(*x.shape[:-1], size)
    wide = torch.promote_types(torch.promote_types(x.dtype, kernel.dtype), torch.float32)
    spectrum = torch.fft.rfft(kernel.to(wide), size)
    y: Tensor = torch.fft.irfft(torch.fft.rfft(x.to(wide), size) * (spectrum.conj() if adjoint else spectrum), size)
    return y.to(x.dtype)


def _fourier_macs(n: int) -> int:
    return 3 * n * ceil(log2(n) + 1)


@structure("circulant")
class Circulant(StructuredMatrix):
    """W[i, j] = column[(i - j) mod n]: n numbers; 16-bit input is computed in float32.

    Args:
        column: (n,), floating point, the first column.
    """

    column: nn.Parameter

    def __init__(self, column: Tensor) -> None:
        n = float_leaf("Circulant", "column", column, 1).shape[0]
        super().__init__((n, n))
        self.leaf("column", column)

    def forward(self, x: Tensor) -> Tensor:
        return convolved(self.column, x, self.shape[0])

    def to_dense(self) -> Tensor:
        return self.rows(torch.arange(self.shape[0], device=self.device))

    def rows(self, index: Tensor) -> Tensor:
        n = self.shape[0]
        return self.column[(index.long()[..., None] - torch.arange(n, device=self.device)) % n]

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(own.parameters, own.bytes, _fourier_macs(self.shape[0]))


@structure("toeplitz")
class Toeplitz(StructuredMatrix):
    """W[i, j] = values[i - j + in - 1]: out + in - 1 numbers; 16-bit input is computed in float32.

    Args:
        values: (out + in - 1,), floating point: the first row from its end to its beginning, then the rest of the
            first column.
        columns: in.
    """

    values: nn.Parameter

    def __init__(self, values: Tensor, *, columns: int) -> None:
        size_option("Toeplitz", "columns", columns)
        count = float_leaf("Toeplitz", "values", values, 1).shape[0]
        if count < columns:
            raise Refused(f"Toeplitz: {count} values are fewer than one row of {columns}")
        super().__init__((count - columns + 1, columns))
        self.leaf("values", values)

    @classmethod
    def from_column_and_row(cls, column: Tensor, row: Tensor) -> Toeplitz:
        """The matrix of a first column (out,) and a first row (in,), whose first entry is not read."""
        return cls(torch.cat([row[1:].flip(0), column]), columns=len(row))

    def options(self) -> dict[str, int]:
        return {"columns": self.shape[1]}

    def forward(self, x: Tensor) -> Tensor:
        out, columns = self.shape
        return convolved(self.values, x, self._circle())[..., columns - 1 : columns - 1 + out]

    def transposed(self, x: Tensor) -> Tensor:
        """W^T x for every vector of x (..., out)."""
        out, columns = self.shape
        return convolved(self.values.flip(0), x, self._circle())[..., out - 1 : out - 1 + columns]

    def to_dense(self) -> Tensor:
        return self.rows(torch.arange(self.shape[0], device=self.device))

    def rows(self, index: Tensor) -> Tensor:
        columns = self.shape[1]
        return self.values[index.long()[..., None] + torch.arange(columns - 1, -1, -1, device=self.device)]

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(own.parameters, own.bytes, _fourier_macs(self._circle()))

    def _circle(self) -> int:
        """A length that Fourier transforms like, on which what is wanted of the convolution meets nothing else."""
        return int(next_fast_len(sum(self.shape) - 1, real=True))


@apply_transposed.register
def _(matrix: Circulant, x: Tensor) -> Tensor:
    return convolved(matrix.column, x, matrix.shape[0], adjoint=True)


@apply_transposed.register
def _(matrix: Toeplitz, x: Tensor) -> Tensor:
    return matrix.transposed(x)
