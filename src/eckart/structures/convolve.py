"""A structure applied to the patches of images, which are not written out where that can be avoided."""

from __future__ import annotations

from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.layouts.patches import POINT, Geometry
from eckart.structures.base import StructuredMatrix
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.compose import Chain, Stack, Sum
from eckart.structures.dense import Dense
from eckart.structures.gated import Gated
from eckart.structures.gaussian import Gaussian
from eckart.structures.interleaved import Interleaved
from eckart.structures.interpolative import Interpolative
from eckart.structures.repeated import Repeated
from eckart.structures.rounded_input import InputRounding
from eckart.structures.scaled import Scaled


@singledispatch
def convolve(matrix: StructuredMatrix, x: Tensor, geometry: Geometry) -> Tensor:
    """`W p` for every patch p of every image: a convolution whose filters, flattened, are W.

    A structure without a rule of its own is written out as filters, or applied as it is where a patch is one position.

    Args:
        matrix: W (out, channels * height * width).
        x: (n, channels, height, width).
        geometry: where the patches lie.

    Returns:
        (n, out, rows, columns).
    """
    if geometry.patch == (1, 1):
        return _of_patches(matrix, x, geometry)
    return _convolved(matrix.to_dense().to(x.dtype), x, geometry)


def _of_patches(matrix: StructuredMatrix, x: Tensor, geometry: Geometry) -> Tensor:
    """The structure applied to the patches, written out."""
    y: Tensor = matrix(geometry.patches(x).movedim(1, -1) if geometry != POINT else x.movedim(1, -1))
    return y.movedim(-1, 1)


def _convolved(weight: Tensor, x: Tensor, geometry: Geometry, groups: int = 1) -> Tensor:
    """The convolution with filters given as (out, channels / groups * height * width)."""
    x, padding = geometry.padded(x)
    filters = weight.reshape(len(weight), -1, *geometry.patch)
    return F.conv2d(x, filters, None, geometry.stride, padding, geometry.dilation, groups)


@convolve.register
def _(matrix: Dense, x: Tensor, geometry: Geometry) -> Tensor:
    return _convolved(matrix.weight, x, geometry)


@convolve.register
def _(matrix: BlockDiagonal, x: Tensor, geometry: Geometry) -> Tensor:
    if not _grouped(matrix, geometry):
        return _convolved(matrix.to_dense(), x, geometry)
    return _convolved(matrix.weight.flatten(0, 1), x, geometry, len(matrix.weight))


@convolve.register
def _(matrix: Repeated, x: Tensor, geometry: Geometry) -> Tensor:
    if not _grouped(matrix, geometry):
        return _convolved(matrix.to_dense().to(x.dtype), x, geometry)
    return _convolved(matrix.matrix.to_dense().to(x.dtype).repeat(matrix.copies, 1), x, geometry, matrix.copies)


def _grouped(matrix: StructuredMatrix, geometry: Geometry) -> bool:
    """Whether a matrix has one block for each group of whole channels."""
    area = geometry.patch[0] * geometry.patch[1]
    if isinstance(matrix, BlockDiagonal):
        return matrix.weight.shape[2] % area == 0
    return isinstance(matrix, Repeated) and matrix.matrix.shape[1] % area == 0


@convolve.register
def _(matrix: Interpolative, x: Tensor, geometry: Geometry) -> Tensor:
    picked = _convolved(matrix.basis, x, geometry)
    combined = _convolved(matrix.rest, picked, POINT) if len(matrix.rest) else picked[:, :0]
    return torch.cat((picked, combined), 1).index_select(1, matrix.index.long())


@convolve.register
def _(matrix: Sum, x: Tensor, geometry: Geometry) -> Tensor:
    first, *others = (convolve(part, x, geometry) for part in matrix.operands())
    for other in others:
        first = first + other
    return first


@convolve.register
def _(matrix: Scaled, x: Tensor, geometry: Geometry) -> Tensor:
    return matrix.scale * convolve(matrix.matrix, x, geometry)


@convolve.register
def _(matrix: Gated, x: Tensor, geometry: Geometry) -> Tensor:
    return matrix.opened(convolve(matrix.right, x, geometry).movedim(1, -1)).movedim(-1, 1)


@convolve.register
def _(matrix: Gaussian, x: Tensor, geometry: Geometry) -> Tensor:
    y = _convolved(matrix.to_dense().to(x.dtype), x, geometry)
    if matrix.noise is None:
        return y
    return matrix.drawn(y, _convolved(matrix.variances().to(x.dtype), x.square(), geometry))


@convolve.register
def _(matrix: InputRounding, x: Tensor, geometry: Geometry) -> Tensor:
    return _of_patches(matrix, x, geometry)  # a patch is a token, which has a scale of its own


@convolve.register
def _(matrix: Stack, x: Tensor, geometry: Geometry) -> Tensor:
    return torch.cat([convolve(part, x, geometry) for part in matrix.operands()], 1)


@convolve.register
def _(matrix: Interleaved, x: Tensor, geometry: Geometry) -> Tensor:
    if _split(matrix, geometry) is None:
        return _convolved(matrix.to_dense().to(x.dtype), x, geometry)
    y, rest = _factor(matrix, x, geometry)
    return rest.patches(y)


@convolve.register
def _(matrix: Chain, x: Tensor, geometry: Geometry) -> Tensor:
    if not matrix.linear:
        return _of_patches(matrix, x, geometry)
    *_, last = parts = matrix.operands()
    cheap = _grouped(last, geometry) or _split(last, geometry) is not None
    if geometry.patch != (1, 1) and not cheap and last.shape[0] >= matrix.shape[0]:
        # The last factor as filters would have no fewer channels than the whole.
        return _convolved(matrix.to_dense().to(x.dtype), x, geometry)
    for part in reversed(parts):
        x, geometry = _factor(part, x, geometry)
    return x if geometry == POINT else geometry.patches(x)


def _factor(matrix: StructuredMatrix, x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """A factor applied to images, and what of the geometry is left to the factors that follow it."""
    split = _split(matrix, geometry)
    if split is None:
        return convolve(matrix, x, geometry), POINT
    assert isinstance(matrix, Interleaved)
    own, rest = split
    return convolve(matrix.matrix, x, own), rest


def _split(matrix: StructuredMatrix, geometry: Geometry) -> tuple[Geometry, Geometry] | None:
    """What the matrix inside M kron I does of a geometry and what it leaves: the rows, or the rows and the columns.

    Patches that overlap share what it makes, so that it need not be made for each. None for other matrices.
    """
    height, width = geometry.patch
    if not isinstance(matrix, Interleaved) or (height, width) == (1, 1):
        return None
    if matrix.copies == height * width:
        return POINT, geometry
    if matrix.copies == width:
        return geometry.vertical, geometry.horizontal
    return None
