"""A structure times a power of two, or times zero, in the same storage."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import nn

from eckart.ops.powers_of_two import times_power
from eckart.structures.base import StructuredMatrix
from eckart.structures.binary_coded import BinaryCoded
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.by_task import ByTask
from eckart.structures.column_sparse import ColumnSparse
from eckart.structures.compose import Chain, Stack, Sum
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal
from eckart.structures.gaussian import Gaussian
from eckart.structures.group_sparse import GroupSparse
from eckart.structures.group_sparse_codes import GroupSparseCodes
from eckart.structures.interleaved import Interleaved
from eckart.structures.interpolative import Interpolative
from eckart.structures.kronecker import Kronecker
from eckart.structures.masked import Masked
from eckart.structures.monarch import Monarch
from eckart.structures.quantized import Quantized
from eckart.structures.repeated import Repeated
from eckart.structures.rounded_input import InputRounding
from eckart.structures.scaled import Scaled
from eckart.structures.scattered import Scattered
from eckart.structures.semisparse import SemiSparse
from eckart.structures.sparse import Sparse
from eckart.structures.toeplitz import Circulant, Toeplitz
from eckart.structures.vector_quantized import VectorQuantized


@singledispatch
def multiply(matrix: StructuredMatrix, exponent: int | None) -> None:
    """Multiplies a structure by 2^exponent in place, or by zero where that is None.

    Only float leaves change, and they are replaced by new tensors, so that nobody who holds the old ones sees it. The
    result is exact but where the dtype underflows, or ends. A product shares the exponent out among its factors, as
    evenly as there are whole numbers, so that none leaves the range of a short dtype before the others do.

    Raises:
        TypeError: a structure, such as a permutation, that holds no numbers.
    """
    raise TypeError(f"{type(matrix).__name__} holds no numbers to multiply")


def leaf(matrix: StructuredMatrix, name: str, exponent: int | None) -> None:
    """Replaces a float leaf by itself times 2^exponent, what is too large for its dtype by the largest; or by zeros."""
    old: nn.Parameter = getattr(matrix, name)
    limit = torch.finfo(old.dtype).max
    new = torch.zeros_like(old) if exponent is None else times_power(old.detach(), exponent).clamp(-limit, limit)
    setattr(matrix, name, nn.Parameter(new, requires_grad=old.requires_grad))


def _rule(name: str, *kinds: type[StructuredMatrix]) -> None:
    def multiply_leaf(matrix: StructuredMatrix, exponent: int | None) -> None:
        leaf(matrix, name, exponent)

    for kind in kinds:
        multiply.register(kind)(multiply_leaf)


_rule("weight", Dense, Diagonal, BlockDiagonal, ByTask)
_rule("values", Sparse, SemiSparse, Masked, GroupSparse, ColumnSparse, Scattered, Toeplitz)
_rule("column", Circulant)
_rule("scales", Quantized, GroupSparseCodes, VectorQuantized)
_rule("basis", Interpolative)


@multiply.register
def _(matrix: Gaussian, exponent: int | None) -> None:
    raise TypeError("Gaussian has deviations beside its numbers: what is finished has none")


@multiply.register
def _(matrix: BinaryCoded, exponent: int | None) -> None:
    leaf(matrix, "scales", exponent)
    if matrix.offsets is not None:
        leaf(matrix, "offsets", exponent)


@multiply.register(Sum)
@multiply.register(Stack)
@multiply.register(Interleaved)
@multiply.register(Repeated)
@multiply.register(InputRounding)
@multiply.register(Scaled)
def _(matrix: StructuredMatrix, exponent: int | None) -> None:
    for part in matrix.operands():
        multiply(part, exponent)


@multiply.register(Kronecker)
@multiply.register(Monarch)
def _(matrix: StructuredMatrix, exponent: int | None) -> None:
    for name, share in zip(("left", "right"), shares(exponent, 2), strict=True):
        leaf(matrix, name, share)


@multiply.register
def _(matrix: Chain, exponent: int | None) -> None:
    holding = [part for part in matrix.operands() if any(p.is_floating_point() for p in part.parameters())]
    if not holding:
        raise TypeError("a product of structures without numbers cannot be multiplied")
    for part, share in zip(holding, shares(exponent, len(holding)), strict=True):
        multiply(part, share)


def shares(exponent: int | None, count: int) -> list[int | None]:
    """An exponent as the sum of so many, which differ by one at most.

    >>> shares(5, 2), shares(-4, 2), shares(None, 2)
    ([3, 2], [-2, -2], [None, None])
    """
    if exponent is None:
        return [None] * count
    each, more = divmod(exponent, count)
    return [each + (i < more) for i in range(count)]
