"""Orthogonal transforms that are stored as nothing and applied fast."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log2, pi
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import hadamard
from torch import Tensor

from eckart.errors import Refused
from eckart.structures._checks import flag_option, size_option
from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.kronecker import apply_kronecker


def cosine_transform(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last dimension, by one real FFT of the same length.

    y[k] = s[k] sum_j x[j] cos(pi (2 j + 1) k / 2n), with s[0] = sqrt(1/n) and s[k] = sqrt(2/n) else. Reordered to
    v = (x0, x2, ..., x3, x1), the sum is the real part of exp(-i pi k / 2n) FFT(v)[k], and that of n - k is minus the
    imaginary part (Makhoul 1980).

    Args:
        x: (..., n), float32 or float64.
    """
    n = x.shape[-1]
    v = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    z = torch.fft.rfft(v) * _twiddle(n, x)
    return torch.cat([z.real, -z.imag[..., 1 : (n + 1) // 2].flip(-1)], -1)


def inverse_cosine_transform(y: Tensor) -> Tensor:
    """The inverse of `cosine_transform`, which is its transpose: the orthonormal DCT-III."""
    n = y.shape[-1]
    half = n // 2 + 1
    imaginary = -F.pad(y[..., 1:].flip(-1), (1, 0))[..., :half]
    v = torch.fft.irfft(torch.complex(y[..., :half], imaginary) * _twiddle(n, y).reciprocal(), n)
    x = torch.empty_like(v)
    x[..., ::2] = v[..., : (n + 1) // 2]
    x[..., 1::2] = v[..., (n + 1) // 2 :].flip(-1)
    return x


def cosine(x: Tensor, *, adjoint: bool) -> Tensor:
    """`cosine_transform` or its inverse in the dtype of x; 16-bit x is computed in float32."""
    if x.numel() == 0:  # FFT libraries refuse an empty batch
        return x.clone()
    y: Tensor = _Cosine.apply(_wide(x), adjoint)  # type: ignore[no-untyped-call]
    return y.to(x.dtype)


class _Cosine(torch.autograd.Function):
    """The gradient of an orthogonal transform is its inverse, which is faster than going back through its steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, adjoint: bool) -> Tensor:
        ctx.adjoint = adjoint
        return inverse_cosine_transform(x) if adjoint else cosine_transform(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        y: Tensor = _Cosine.apply(g, not ctx.adjoint)  # type: ignore[no-untyped-call]
        return y, None


def _twiddle(n: int, like: Tensor) -> Tensor:
    """s[k] exp(-i pi k / 2n) for k = 0..n/2; s[k] as in `cosine_transform`."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    scale = torch.full_like(k, (2 / n) ** 0.5)
    scale[0] = (1 / n) ** 0.5
    return torch.polar(scale, k * (-pi / (2 * n))).to(like.dtype.to_complex()).to(like.device)


_TWO_FACTORS, _FACTOR = 2**14, 128


def hadamard_transform(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of the last dimension, in Sylvester's order; its own inverse.

    H_n = H_a kron H_b with a b = n and both near sqrt(n): two matrix products run faster than log2(n) butterflies, and
    more of them where n is large.

    Args:
        x: (..., n), n a power of two.
    """
    n = x.shape[-1]
    if n > _TWO_FACTORS:
        inner = hadamard_transform(x.reshape(*x.shape[:-1], _FACTOR, n // _FACTOR))
        return (torch.from_numpy(_sylvester(_FACTOR)).to(x) @ inner).reshape(x.shape) * float(_FACTOR**-0.5)
    a = 1 << (n.bit_length() - 1) // 2
    left, right = (torch.from_numpy(_sylvester(size)).to(x) for size in (a, n // a))
    return apply_kronecker(left, right, x) * float(n**-0.5)


def _factors(n: int) -> int:
    """The sum of the sizes of the factors that `hadamard_transform` multiplies with: multiply-adds for each number."""
    if n > _TWO_FACTORS:
        return _FACTOR + _factors(n // _FACTOR)
    a = 1 << (n.bit_length() - 1) // 2
    return a + n // a


@lru_cache(maxsize=32)
def _sylvester(n: int) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = np.asarray(hadamard(n), np.float32)
    return matrix


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@structure("cosine")
class Cosine(StructuredMatrix):
    """The orthonormal discrete cosine transform (DCT-II), or its transpose; 16-bit input is computed in float32.

    Args:
        size: number of rows and of columns.
        adjoint: whether W is the transpose, which is the inverse.
    """

    def __init__(self, size: int, *, adjoint: bool = False) -> None:
        size_option("Cosine", "size", size)
        super().__init__((size, size))
        self.adjoint = flag_option("Cosine", "adjoint", adjoint)

    def options(self) -> dict[str, int | bool]:
        return {"size": self.shape[0], "adjoint": self.adjoint}

    def forward(self, x: Tensor) -> Tensor:
        return cosine(x, adjoint=self.adjoint)

    def rows(self, index: Tensor) -> Tensor:
        return cosine(F.one_hot(index.long(), self.shape[0]).to(self.dtype), adjoint=not self.adjoint)

    def cost(self) -> Cost:
        n = self.shape[0]
        return Cost(0, 0, n * ceil(log2(n) + 1))


@structure("hadamard")
class Hadamard(StructuredMatrix):
    """The orthonormal Walsh-Hadamard matrix, entries +-1/sqrt(size); 16-bit input is computed in float32.

    Args:
        size: number of rows and of columns, a power of two.
    """

    def __init__(self, size: int) -> None:
        if size_option("Hadamard", "size", size) & (size - 1):
            near = 1 << size.bit_length()
            raise Refused(f"Hadamard: size must be a power of two, got {size}; the nearest are {near // 2} and {near}")
        super().__init__((size, size))

    def options(self) -> dict[str, int]:
        return {"size": self.shape[0]}

    def forward(self, x: Tensor) -> Tensor:
        return hadamard_transform(_wide(x)).to(x.dtype)

    def rows(self, index: Tensor) -> Tensor:
        return hadamard_transform(F.one_hot(index.long(), self.shape[0]).to(self.dtype))

    def cost(self) -> Cost:
        n = self.shape[0]
        return Cost(0, 0, n * _factors(n))
