"""A market of structures: one or more of every kind, nested ones too, in every float dtype, for whoever tests all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import torch
from torch import Tensor

from eckart.ops.packing import normal_float, pack
from eckart.structures import (
    BinaryCoded,
    BlockDiagonal,
    ByTask,
    Chain,
    Circulant,
    ColumnSparse,
    Cosine,
    Dense,
    Diagonal,
    Gaussian,
    GroupSparse,
    GroupSparseCodes,
    Hadamard,
    Householder,
    Identity,
    Interleaved,
    Interpolative,
    Kernelized,
    Kronecker,
    Masked,
    Monarch,
    Permutation,
    Quantized,
    Repeated,
    Scaled,
    Scattered,
    Scored,
    Selection,
    SemiSparse,
    Sparse,
    Stack,
    StructuredMatrix,
    Sum,
    Toeplitz,
    VectorQuantized,
    kronecker_sum,
    low_rank,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Stall:
    """Random material of one dtype; the same for the same name."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(crc32(name.encode()))
        self.dtype = dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def order(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator)

    def holes(self, out: int, columns: int, density: float) -> Tensor:
        kept = torch.rand(out, columns, generator=self.generator) < density
        return self.normal(out, columns) * kept

    def masked(self, out: int, columns: int, density: float) -> Masked:
        kept = torch.rand(out, columns, generator=self.generator) < density
        return Masked.from_dense(self.normal(out, columns), kept)

    def groups(self, out: int, groups: int, density: float) -> Tensor:
        """Which groups of each row are kept."""
        return torch.rand(out, groups, generator=self.generator) < density

    def planes(self, planes: int, out: int, columns: int, group: int, offsets: bool = False) -> BinaryCoded:
        signs = torch.rand(planes, out, columns, generator=self.generator) < 0.5
        groups = -(-columns // group)
        z = self.normal(out, groups) if offsets else None
        return BinaryCoded.from_planes(signs, self.normal(out, groups, planes), z, group=group)

    def vectors(self, bits: int, length: int, out: int, columns: int, group: int) -> VectorQuantized:
        codes = torch.randint(1 << bits, (-(-out // length), columns), generator=self.generator, dtype=torch.uint8)
        scales, codebook = self.normal(out, -(-columns // group)), self.normal(1 << bits, length)
        return VectorQuantized.from_codes(codes, scales, codebook, group=group)


Builder = Callable[[Stall], StructuredMatrix]

BUILDERS: dict[str, Builder] = {
    "dense": lambda s: Dense(s.normal(5, 7)),
    "dense-1xn": lambda s: Dense(s.normal(1, 6)),
    "dense-nx1": lambda s: Dense(s.normal(6, 1)),
    "identity": lambda s: Identity(5),
    "identity-1": lambda s: Identity(1),
    "diagonal": lambda s: Diagonal(s.normal(6)),
    "diagonal-1": lambda s: Diagonal(s.normal(1)),
    "sparse": lambda s: Sparse.from_dense(s.holes(9, 7, 0.3)),
    "sparse-1xn": lambda s: Sparse.from_dense(s.holes(1, 20, 0.5)),
    "sparse-empty": lambda s: Sparse.from_dense(torch.zeros(3, 4, dtype=s.dtype)),
    "sparse-full": lambda s: Sparse.from_dense(s.normal(3, 4)),
    "sparse-wide": lambda s: Sparse(s.normal(2), torch.tensor([3, 40000]), torch.tensor([0, 1, 2]), size=40001),
    "semisparse-2:4": lambda s: SemiSparse.from_dense(s.normal(6, 12), 2, 4),
    "semisparse-3:8-ragged": lambda s: SemiSparse.from_dense(s.normal(3, 17), 3, 8),
    "semisparse-2:4-narrow": lambda s: SemiSparse.from_dense(s.normal(3, 1), 2, 4),
    "semisparse-1:2-1xn": lambda s: SemiSparse.from_dense(s.normal(1, 10), 1, 2),
    "masked": lambda s: s.masked(9, 16, 0.5),
    "masked-ragged": lambda s: s.masked(5, 19, 0.3),
    "masked-narrow": lambda s: s.masked(6, 1, 0.5),
    "masked-1xn": lambda s: s.masked(1, 20, 0.5),
    "masked-empty": lambda s: s.masked(3, 4, 0.0),
    "masked-full": lambda s: s.masked(3, 10, 1.0),
    "group-sparse": lambda s: GroupSparse.from_dense(s.normal(7, 64), s.groups(7, 4, 0.5)),
    "group-sparse-ragged": lambda s: GroupSparse.from_dense(s.normal(4, 21), s.groups(4, 2, 0.6)),
    "group-sparse-of-3": lambda s: GroupSparse.from_dense(s.normal(5, 13), s.groups(5, 5, 0.5), 3),
    "group-sparse-1xn": lambda s: GroupSparse.from_dense(s.normal(1, 40), s.groups(1, 3, 0.5)),
    "group-sparse-narrow": lambda s: GroupSparse.from_dense(s.normal(6, 1), s.groups(6, 1, 0.5)),
    "group-sparse-empty": lambda s: GroupSparse.from_dense(s.normal(3, 20), s.groups(3, 2, 0)),
    "group-sparse-full": lambda s: GroupSparse.from_dense(s.normal(3, 20), s.groups(3, 2, 1)),
    "group-sparse-wide": lambda s: GroupSparse.from_dense(s.normal(2, 300), s.groups(2, 300, 0.1), 1),
    "group-sparse-codes": lambda s: GroupSparseCodes.quantize(s.normal(7, 64), s.groups(7, 4, 0.5), 4),
    "group-sparse-codes-ragged": lambda s: GroupSparseCodes.quantize(s.normal(4, 21), s.groups(4, 2, 0.6), 4),
    "group-sparse-codes-3-bits-of-5": lambda s: GroupSparseCodes.quantize(s.normal(3, 13), s.groups(3, 3, 0.5), 3, 5),
    "group-sparse-codes-empty": lambda s: GroupSparseCodes.quantize(s.normal(2, 20), s.groups(2, 2, 0), 4),
    "column-sparse": lambda s: ColumnSparse.from_dense(s.normal(9, 5), 3),
    "column-sparse-1xn": lambda s: ColumnSparse.from_dense(s.normal(1, 5), 1),
    "block-diagonal": lambda s: BlockDiagonal(s.normal(3, 4, 2)),
    "block-diagonal-1": lambda s: BlockDiagonal(s.normal(1, 2, 5)),
    "kronecker": lambda s: Kronecker(s.normal(2, 3), s.normal(4, 5)),
    "kronecker-right-first": lambda s: Kronecker(s.normal(5, 2), s.normal(1, 6)),
    "kronecker-sum": lambda s: Kronecker(s.normal(3, 2, 5), s.normal(3, 4, 2)),
    "kronecker-sum-right-first": lambda s: Kronecker(s.normal(2, 5, 2), s.normal(2, 1, 6)),
    "permutation": lambda s: Permutation(s.order(8)),
    "scaled": lambda s: Scaled(
        Sum(Dense(s.normal(4, 6)), Scaled(low_rank(s.normal(4, 2), s.normal(2, 6)), scale=2)), scale=-0.5
    ),
    "selection": lambda s: Selection(torch.tensor([4, 0, 4]), size=6),
    "selection-adjoint": lambda s: Selection(s.order(7)[:3], size=7, adjoint=True),
    "cosine": lambda s: Cosine(12),
    "cosine-odd-adjoint": lambda s: Cosine(7, adjoint=True),
    "cosine-1": lambda s: Cosine(1),
    "hadamard": lambda s: Hadamard(32),
    "hadamard-1": lambda s: Hadamard(1),
    "circulant": lambda s: Circulant(s.normal(9)),
    "circulant-1": lambda s: Circulant(s.normal(1)),
    "toeplitz": lambda s: Toeplitz(s.normal(12), columns=8),
    "toeplitz-1xn": lambda s: Toeplitz(s.normal(6), columns=6),
    "toeplitz-nx1": lambda s: Toeplitz(s.normal(6), columns=1),
    "kronecker-sum-of-two": lambda s: kronecker_sum(Dense(s.normal(3, 3)), Dense(s.normal(4, 4))),
    "householder": lambda s: Householder(s.normal(3, 7)),
    "kernelized": lambda s: Kernelized(s.normal(2, 5, 3), s.normal(2, 7, 3), torch.tensor([12]), scale=-0.5),
    "scattered": lambda s: Scattered(s.normal(4), torch.tensor([[4, 0, 4, 4], [1, 6, 1, 0]]), out=5, columns=7),
    "gaussian": lambda s: Gaussian(
        s.normal(3),
        torch.nn.Parameter(s.normal(3), requires_grad=False),  # of which means know nothing
        torch.tensor([[4, 0, 4], [1, 6, 0]]),
        out=5,
        columns=7,
    ),
    "by-task": lambda s: ByTask(
        s.normal(5, 9), pack(torch.ones(2, 5, 9, dtype=torch.uint8).tril(), 1), torch.tensor([1]), torch.tensor([2])
    ),
    "scored": lambda s: Scored(Dense(s.normal(5, 7)), Dense(s.normal(5, 7)), torch.tensor([12])),
    "scored-without-magnitudes": lambda s: Scored(
        Dense(s.normal(5, 7)), Sum(Dense(s.normal(5, 7)), Dense(s.normal(5, 7))), torch.tensor([35]), magnitudes=False
    ),
    "quantized": lambda s: Quantized.quantize(s.normal(6, 16), 4, 8),
    "quantized-3-bits-ragged": lambda s: Quantized.quantize(s.normal(3, 13), 3, 5, symmetric=True),
    "quantized-codebook": lambda s: Quantized.quantize(s.normal(4, 6), 4, 6, codebook=normal_float(4)),
    "quantized-1xn": lambda s: Quantized.quantize(s.normal(1, 9), 8, 9, symmetric=True),
    "vector-quantized": lambda s: s.vectors(8, 4, 18, 16, 8),
    "vector-quantized-6-bits-ragged": lambda s: s.vectors(6, 2, 5, 13, 5),
    "vector-quantized-1xn": lambda s: s.vectors(4, 2, 1, 9, 9),
    "vector-quantized-of-entries": lambda s: s.vectors(3, 1, 4, 6, 6),
    "binary-coded": lambda s: s.planes(2, 18, 40, 16),
    "binary-coded-offsets-ragged": lambda s: s.planes(3, 5, 13, 13, offsets=True),
    "binary-coded-1xn": lambda s: s.planes(1, 1, 9, 9),
    "low-rank": lambda s: low_rank(s.normal(8, 2), s.normal(2, 6)),
    "interpolative": lambda s: Interpolative.from_pivots(s.order(9)[:3], s.normal(6, 3), s.normal(3, 5)),
    "interpolative-full-rank": lambda s: Interpolative.from_pivots(s.order(4), s.normal(0, 4), s.normal(4, 6)),
    "interleaved": lambda s: Interleaved(Dense(s.normal(3, 4)), copies=3),
    "repeated": lambda s: Repeated(Dense(s.normal(3, 4)), copies=3),
    "repeated-kernels": lambda s: Repeated(Kronecker(s.normal(2, 3), s.normal(1, 2)), copies=2),
    "interleaved-identity": lambda s: Interleaved(Identity(2), copies=1),
    "separable": lambda s: Chain(Dense(s.normal(5, 6)), Interleaved(Dense(s.normal(3, 8)), copies=2)),
    "canonical": lambda s: Chain(
        Dense(s.normal(5, 2)),
        BlockDiagonal(s.normal(2, 1, 2)),
        Interleaved(BlockDiagonal(s.normal(2, 1, 3)), copies=2),
        Interleaved(Dense(s.normal(2, 4)), copies=6),
    ),
    "low-rank-plus-sparse": lambda s: Sum(
        low_rank(s.normal(8, 2), s.normal(2, 6)), Sparse.from_dense(s.holes(8, 6, 0.2))
    ),
    "quantized-plus-low-rank": lambda s: Sum(
        Quantized.quantize(s.normal(5, 8), 2, 4), low_rank(s.normal(5, 1), s.normal(1, 8))
    ),
    "low-rank-plus-masked": lambda s: Sum(low_rank(s.normal(8, 2), s.normal(2, 6)), s.masked(8, 6, 0.3)),
    "dictionary": lambda s: Chain(Dense(s.normal(6, 8)), ColumnSparse.from_dense(s.normal(8, 5), 2)),
    "monarch": lambda s: Monarch(s.normal(3, 4, 10), s.normal(2, 15, 3)),
    "monarch-of-one-block": lambda s: Monarch(s.normal(1, 5, 2), s.normal(1, 2, 6)),
    "blocks-in-other-orders": lambda s: Chain(
        BlockDiagonal(s.normal(2, 3, 4)),
        Permutation(s.order(8)),
        BlockDiagonal(s.normal(4, 2, 3)),
        Permutation(s.order(12)),
    ),
    "spectral": lambda s: Chain(Cosine(6, adjoint=True), Sparse.from_dense(s.holes(6, 9, 0.3)), Cosine(9)),
    "rotated": lambda s: Chain(
        Hadamard(4), Diagonal(s.normal(4)), Cosine(4), Kronecker(s.normal(2, 1), s.normal(2, 3))
    ),
    "interpolated": lambda s: Chain(
        Selection(s.order(5)[:2], size=5, adjoint=True), Dense(s.normal(2, 3)), Permutation(s.order(3))
    ),
    "mixed": lambda s: Chain(
        Selection(torch.tensor([1, 1, 6, 2]), size=9),
        Stack(Sum(Identity(4), Cosine(4)), Dense(s.normal(5, 4))),
        Sum(Permutation(s.order(4)), Diagonal(s.normal(4)), Chain(Hadamard(4), Identity(4))),
        Stack(Dense(s.normal(3, 6)), Selection(torch.tensor([5]), size=6)),
    ),
    "nothing-stored": lambda s: Stack(Chain(Identity(4), Cosine(4)), Sum(Hadamard(4), Identity(4))),
}


def market(dtypes: Sequence[torch.dtype] = DTYPES) -> Iterator[tuple[str, StructuredMatrix]]:
    """(id, structure) for every entry in every dtype, made afresh and always the same."""
    for name, build in BUILDERS.items():
        for dtype in dtypes:
            yield f"{name}-{str(dtype).removeprefix('torch.')}", build(Stall(name, dtype))


def kinds(structure: StructuredMatrix) -> set[str]:
    """The kinds of all nodes of a tree."""
    return {structure.kind}.union(*(kinds(child) for child in structure.operands()))
