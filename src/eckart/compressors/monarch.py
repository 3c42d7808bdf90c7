"""Monarch: a product of two block-diagonal matrices with a permutation between them."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._nested_sums import Terms
from eckart.compressors.contract import compressor
from eckart.linalg.batched_svd import batched_svd
from eckart.linalg.kronecker import largest_divisor
from eckart.statistics.needs import Statistics
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.compose import Chain
from eckart.structures.permutation import Permutation
from eckart.structures.quantized import finite_matrix

BLOCKS = 4
"""Blocks along each side, the default of the authors' code."""


@compressor(
    "monarch",
    paper="Dao et al. 2022, arXiv 2204.00595",
    expression="Chain(Permutation, BlockDiagonal, Permutation, BlockDiagonal)",
    size="terms",
)
def monarch(weight: Tensor, statistics: Statistics) -> Terms:
    """Cuts W into 4 x 4 blocks and stores the best rank-r approximation of each as two block-diagonal factors.

    One term is the paper's projection, for rectangular matrices too. With r terms it is the nearest sum of r such
    matrices, in r (a in + b out) numbers for a x b blocks; the authors' n x n layers with 4 blocks in both factors are
    those of n / 16 terms. A block holds neighbouring columns and every a-th row, as in the paper. A side that 4 does
    not divide is cut into 3 or 2 equal parts or left whole.

    The authors' projection takes square matrices only, and n = k^2 as k x k blocks of one term, in which it agrees with
    this one to six digits; as many numbers in 4 x 4 blocks have an error 0.4 to 17 % smaller
    (`benchmarks/peers/authors.py`).
    """
    w = finite_matrix(weight)
    # Two vectors are less than a block only where it has three rows or columns.
    across, along = (largest_divisor(n, max(1, min(BLOCKS, n // 3))) for n in w.shape)
    left, right, tails = batched_svd(cut(w, across, along))

    def cost(terms: int) -> Cost:
        return monarch_cost(w.shape, (across, along), terms, w.element_size())

    def assemble(terms: int) -> Chain:
        return join(left[..., :terms].to(w.dtype, copy=True), right[..., :terms, :].to(w.dtype, copy=True))

    return Terms(w, tails, cost, assemble)


def cut(weight: Tensor, across: int, along: int) -> Tensor:
    """W (out, in) as blocks (across, along, out / across, in / along); row k of block i is row k across + i of W."""
    out, columns = weight.shape
    return weight.reshape(out // across, across, along, columns // along).permute(1, 2, 0, 3)


def join(left: Tensor, right: Tensor) -> Chain:
    """The matrix whose block (i, j) is left[i, j] @ right[i, j], as P_2 L P_1 R.

    R sends x_j to right[i, j] x_j for all i, P_1 brings together what belongs to one i, L sums over j, and P_2 puts
    rows where `cut` found them. Permutations that move nothing are left out.

    Args:
        left: (a, b, p, r).
        right: (a, b, r, q).
    """
    a, b, p, r = left.shape
    first = BlockDiagonal(right.transpose(0, 1).reshape(b, a * r, -1).contiguous())
    last = BlockDiagonal(left.transpose(1, 2).reshape(a, p, b * r).contiguous())
    chain: list[StructuredMatrix] = [last, first]
    if min(a, b) > 1:
        chain.insert(1, Permutation(torch.arange(a * b * r).view(b, a, r).transpose(0, 1).flatten()))
    if a > 1:
        chain.insert(0, Permutation(torch.arange(a * p).view(a, p).T.flatten()))
    return Chain(*chain)


def monarch_cost(shape: torch.Size, cuts: tuple[int, int], terms: int, itemsize: int) -> Cost:
    """The cost of `join` for a matrix of that shape in `cuts` blocks."""
    (out, columns), (a, b) = shape, cuts
    values = terms * (a * columns + b * out)
    moved = (a * b * terms if min(a, b) > 1 else 0) + (out if a > 1 else 0)
    return Cost(values, values * itemsize + 4 * moved, values)
