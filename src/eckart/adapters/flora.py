"""A small core between thin factors: the Tucker decomposition of the change."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters.contract import Filters, Layer, Start, adapter, check_rank
from eckart.structures.conv_filters import chain, filters_of, pointwise
from eckart.structures.dense import Dense
from eckart.structures.kronecker import Kronecker
from eckart.structures.repeated import Repeated

SPATIAL = 2
"""The rank of the two modes of filters, as in the authors' example; at most their height and width."""


def ranks(shape: Filters, rank: int) -> Filters:
    """The shape of the core: no mode has a higher rank than its size, and height and width have at most `SPATIAL`."""
    out, channels, height, width = shape
    return min(rank, out), min(rank, channels), min(SPATIAL, height), min(SPATIAL, width)


def numbers(shape: Filters, rank: int) -> int:
    """Those of the core and of its factors; filters of 1 x 1 have but two modes."""
    p, q, s, t = ranks(shape, rank)
    spatial = s * shape[2] + t * shape[3] if shape[2:] != (1, 1) else 0
    return p * q * s * t + p * shape[0] + q * shape[1] + spatial


@adapter(
    "flora",
    paper="Si 2024, arXiv 2405.14739",
    expression="Sum(Dense, Chain(Dense*, Dense*, Repeated(Kronecker*), Interleaved(Dense*)))",
    parameters=lambda out, columns, rank: numbers((out, columns, 1, 1), rank),
    scaled=True,
    of_filters=numbers,
)
def flora(layer: Layer) -> Start:
    """W + (alpha / r) G x_1 U_1 x_2 U_2 x_3 U_3 x_4 U_4, a core G that is zero at the start and a factor for each mode.

    The modes are those of filters (out, channels, height, width): dW[o, c, y, x] = sum_pqst G[p, q, s, t] U_1[o, p]
    U_2[c, q] U_3[y, s] U_4[x, t], of ranks r, r, 2 and 2, none above its size. A linear layer has two modes,
    U_1 G U_2^T: r (out + in + r) numbers. The factor of a mode of size n is uniform in +-1 / sqrt(n).
    """
    rank = check_rank(layer)
    out, channels, height, width = filters_of(layer.weight, layer.statistics).shape
    shape = (out, channels, height, width)
    core = ranks(shape, rank)

    def factor(size: int, rank: int) -> Tensor:
        uniform = torch.rand(size, rank, generator=layer.generator, dtype=layer.dtype)
        return (2 * uniform - 1).div(size**0.5)

    one, two, *spatial = (factor(n, r) for n, r in zip(shape, core, strict=True))
    left = [Dense(one), Dense(one.new_zeros(core[0], core[1] * core[2] * core[3]))]
    right = pointwise(two.T.contiguous(), height * width)
    if height * width == 1:
        return Start(chain([*left, right]))
    three, four = (each.T.contiguous() for each in spatial)
    return Start(chain([*left, Repeated(Kronecker(three, four), copies=core[1]), right]))
