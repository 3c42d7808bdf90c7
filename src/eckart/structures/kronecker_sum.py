"""Sums of two matrices that act on two sides of a table."""

from __future__ import annotations

from eckart.errors import Refused
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Sum
from eckart.structures.interleaved import Interleaved
from eckart.structures.repeated import Repeated


def kronecker_sum(left: StructuredMatrix, right: StructuredMatrix) -> Sum:
    """W = left kron I + I kron right: the first acts on the rows of a table, the second on its columns.

    Args:
        left: (a, a).
        right: (b, b).

    Raises:
        Refused: one of them is not square.
    """
    for matrix in (left, right):
        if matrix.shape[0] != matrix.shape[1]:
            raise Refused(f"a Kronecker sum is of square matrices, got one of shape {matrix.shape}")
    return Sum(Interleaved(left, copies=right.shape[0]), Repeated(right, copies=left.shape[0]))
