"""Monarch: a product of two block-diagonal matrices with a permutation between them."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors._nested_sums import Terms
from eckart.compressors.contract import compressor
from eckart.linalg.monarch import cuts, monarch_cost, project
from eckart.statistics.needs import Statistics
from eckart.structures.base import Cost
from eckart.structures.monarch import Monarch
from eckart.structures.quantized import finite_matrix


@compressor("monarch", paper="Dao et al. 2022, arXiv 2204.00595", expression="Monarch", size="terms")
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
    across, along = cuts((len(w), w.shape[1]))
    left, right, tails = project(w, across, along)

    def cost(terms: int) -> Cost:
        return monarch_cost((len(w), w.shape[1]), (across, along), terms, w.dtype)

    def assemble(terms: int) -> Monarch:
        return Monarch.from_blocks(left[..., :terms].to(w.dtype), right[..., :terms, :].to(w.dtype))

    return Terms(w, tails, cost, assemble)
