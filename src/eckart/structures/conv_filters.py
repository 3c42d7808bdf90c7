"""Kernels of convolutions, and what is made of them as matrices over patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eckart.errors import Refused
from eckart.statistics.needs import Statistics
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.interleaved import Interleaved
from eckart.structures.quantized import finite_matrix


def filters_of(weight: Tensor, statistics: Statistics) -> Tensor:
    """W (out, in) as (out, channels, height, width); height and width are 1 where the inputs are no patches.

    Raises:
        Refused: W is no finite matrix, or its inputs cannot be patches of the stated size.
    """
    w = finite_matrix(weight)
    height, width = statistics.patch or (1, 1)
    if w.shape[1] % (height * width):
        raise Refused(f"a matrix of shape {tuple(w.shape)} does not act on patches of {height} x {width}")
    return w.reshape(len(w), -1, height, width)


def chain(factors: Sequence[StructuredMatrix]) -> StructuredMatrix:
    """The product of the factors; a single one is itself."""
    return Chain(*factors) if len(factors) > 1 else factors[0]


def interleaved(matrix: StructuredMatrix, copies: int) -> StructuredMatrix:
    """matrix kron I, which is the matrix where I is 1."""
    return Interleaved(matrix, copies=copies) if copies > 1 else matrix


def pointwise(weight: Tensor, copies: int) -> StructuredMatrix:
    """A matrix (new channels, channels) at every one of the `copies` positions of a patch."""
    return interleaved(Dense(weight), copies)
