"""The tokens of a matrix: those of sequences, and the patches of images, which are written out a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from eckart.layouts.patches import Geometry

ENTRIES = 1 << 23
"""The patches of so many images are written out at a time as have this many entries together, of one image at least."""


def positions(x: Tensor, geometry: Geometry) -> int:
    """How many patches the images have together."""
    found = geometry.images(x)
    return len(found) * prod(geometry.positions(*found.shape[-2:]))


def products(x: Tensor, gradient: Tensor, geometry: Geometry | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs x (n, tokens, in) and gradients g (n, tokens, out) of a few samples at a time, float32: dloss/dW = g^T x.

    Args:
        x: what the module was given: (n, ..., in), or images.
        gradient: of the loss by what it returned.
        geometry: of a convolution; None for a linear map over the last dimension.
    """
    g = gradient.float() if geometry is None else geometry.images(gradient).float().movedim(1, -1)
    g = g.reshape(len(g), -1, g.shape[-1])
    for some in [x.detach().float()] if geometry is None else patches_of(x, geometry):
        yield some.reshape(len(some), -1, some.shape[-1]), g[: len(some)]
        g = g[len(some) :]


def patches_of(x: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """The patches of images as (n, positions, in), in float32, of a few images at a time."""
    x = geometry.images(x.detach())
    each = x.shape[1] * prod(geometry.patch) * prod(geometry.positions(*x.shape[-2:]))
    for some in torch.split(x, max(1, ENTRIES // max(1, each))):
        yield geometry.patches(some.float()).flatten(2).mT
