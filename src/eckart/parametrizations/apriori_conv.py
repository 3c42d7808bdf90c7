"""Convolutions whose filters are chains of filters along one direction each, from the start."""

from __future__ import annotations

from eckart.errors import Refused
from eckart.parametrizations.contract import Layer, parametrization
from eckart.structures.base import StructuredMatrix
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.conv_filters import chain, interleaved, pointwise
from eckart.structures.specs import WIDER


@parametrization(
    "apriori-conv",
    paper="Boukraichi et al. 2023, arXiv 2304.04964",
    expression="Chain(BlockDiagonal*, Interleaved(BlockDiagonal*), Interleaved(Dense*))",
)
def apriori_conv(layer: Layer, *, terms: int = 1) -> StructuredMatrix:
    """W[o, c, y, x] = sum_t B[o, t, c] V[o, t, y] H[o, t, x]: channels, columns and rows, a filter along each.

    Every output has `terms` such products, in terms (in channels + height + width) numbers instead of in channels
    height width: 1 x 1, then vertical filters of one channel each, then horizontal ones. Entries of all factors are
    drawn from one normal distribution such that those of W have the variance of the dense filters. Layers whose inputs
    are no patches of more than one position stay dense, and so do layers of one or two channels.
    """
    if layer.patch is None or layer.patch == (1, 1):
        raise Refused("its inputs are no patches of several positions, along which filters could lie")
    if terms < 1:
        raise Refused(f"terms={terms} must be at least 1")
    height, width = layer.patch
    out, columns = layer.shape
    channels = columns // (height * width)
    along = [size for size in (height, width) if size > 1]
    if (count := terms * (channels + sum(along))) >= columns:
        raise Refused(f"terms={terms} make {count} numbers an output, and dense filters have {columns}")
    inner = out * terms * height * width
    if inner > max(WIDER * max(layer.shape), out * count):
        raise Refused(
            f"its {channels} channels are few for {out} outputs: a factor would have {inner} rows, too many to save"
        )
    each = (layer.variance / terms) ** (1 / (1 + len(along)))
    parts = [pointwise(layer.normal(out * terms, channels, variance=each), height * width)]
    copies = height * width
    for i, size in enumerate(along):
        copies //= size
        last = i == len(along) - 1  # which sums over the terms of an output
        blocks = (out, 1, terms * size) if last else (out * terms, 1, size)
        parts.append(interleaved(BlockDiagonal(layer.normal(*blocks, variance=each)), copies))
    return chain(parts[::-1])
