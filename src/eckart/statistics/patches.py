"""The patches of images, which are the inputs of a convolution's matrix, a few images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from eckart.structures.geometry import Geometry

ENTRIES = 1 << 23
"""The patches of so many images are written out at a time as have this many entries together, of one image at least."""


def images(x: Tensor) -> Tensor:
    """Images (n, channels, height, width), also where there is one without n."""
    return x if x.ndim == 4 else x[None]


def positions(x: Tensor, geometry: Geometry) -> int:
    """How many patches the images have together."""
    return len(images(x)) * prod(geometry.positions(*x.shape[-2:]))


def patches_of(x: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """The patches of images as (n, positions, in), in float32, of a few images at a time."""
    x = images(x.detach())
    each = x.shape[1] * prod(geometry.kernel) * positions(x[:1], geometry)
    for some in torch.split(x, max(1, ENTRIES // max(1, each))):
        yield geometry.patches(some.float()).flatten(2).mT
