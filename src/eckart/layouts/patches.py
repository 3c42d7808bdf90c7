"""Where the patches of an image lie that a convolution multiplies by its matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The patches of an image (channels, height, width), one for each output position.

    Attributes:
        patch: height and width of a patch; its entries are numbered channel by channel, row by row.
        stride: rows and columns from one patch to the next.
        padding: rows of zeros above and below the image, columns of zeros to the left and to the right of it.
        dilation: rows and columns from one entry of a patch to the next.
    """

    patch: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def vertical(self) -> Geometry:
        """The part of it that moves along columns."""
        return Geometry((self.patch[0], 1), (self.stride[0], 1), (self.padding[0], (0, 0)), (self.dilation[0], 1))

    @property
    def horizontal(self) -> Geometry:
        """The part of it that moves along rows: after `vertical` the whole is done."""
        return Geometry((1, self.patch[1]), (1, self.stride[1]), ((0, 0), self.padding[1]), (1, self.dilation[1]))

    def padded(self, x: Tensor) -> tuple[Tensor, Pair]:
        """The image, and the zeros that it still lacks on both sides of its rows and of its columns.

        Padding that differs between two sides is added here, because no convolution knows it.
        """
        (above, below), (left, right) = self.padding
        if above == below and left == right:
            return x, (above, left)
        return F.pad(x, (left, right, above, below)), (0, 0)

    def positions(self, height: int, width: int) -> Pair:
        """Rows and columns of patches that an image of that size has."""
        rows, columns = (
            (size + sum(zeros) - dilation * (patch - 1) - 1) // stride + 1
            for size, zeros, dilation, patch, stride in zip(
                (height, width), self.padding, self.dilation, self.patch, self.stride, strict=True
            )
        )
        return rows, columns

    def patches(self, x: Tensor) -> Tensor:
        """Images (n, channels, height, width) as (n, channels * area of a patch, rows, columns), a patch a position."""
        rows, columns = self.positions(*x.shape[2:])
        x, padding = self.padded(x)
        flat = F.unfold(x, self.patch, self.dilation, padding, self.stride)
        return flat.reshape(*flat.shape[:2], rows, columns)


POINT = Geometry()
"""Every position is a patch of its own."""


def is_conv2d(module: nn.Module) -> bool:
    """Whether a module is one matrix over the patches of zero-padded images: an nn.Conv2d without groups.

    Not its subclasses, which may do more with a weight than multiply by it.
    """
    return type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"


def why_no_matrix(module: nn.Module) -> str | None:
    """What keeps a layer that has a weight from being one matrix over its inputs; None for all but kin of those.

    >>> why_no_matrix(nn.Conv2d(8, 8, 3, groups=8))
    'a convolution in 8 groups'
    """
    if type(module) is nn.Conv2d and module.groups > 1:
        return f"a convolution in {module.groups} groups"
    if type(module) is nn.Conv2d and module.padding_mode != "zeros":
        return f"a convolution padded by padding_mode={module.padding_mode!r}"
    kin = isinstance(module, _ConvNd | nn.Linear) and type(module) not in (nn.Conv2d, nn.Linear)
    return f"of the type {type(module).__name__}" if kin else None


def geometry_of(module: nn.Module) -> Geometry | None:
    """The patches that a convolution meets, dense or structured; None for a module that is no such convolution."""
    if not is_conv2d(module):
        geometry = getattr(module, "geometry", None)
        return geometry if isinstance(geometry, Geometry) else None
    assert isinstance(module, nn.Conv2d)
    (height, width), (down, across) = map(_pair, (module.kernel_size, module.dilation))
    if module.padding == "same":
        total = (height - 1) * down, (width - 1) * across
        padding = tuple((t // 2, t - t // 2) for t in total)
    elif module.padding == "valid":
        padding = ((0, 0), (0, 0))
    else:
        padding = tuple((int(p), int(p)) for p in module.padding)
    return Geometry((height, width), _pair(module.stride), (padding[0], padding[1]), (down, across))


def patch_of(module: nn.Module) -> Pair | None:
    """Height and width of the patches of a convolution, dense or structured; None for any other module."""
    geometry = geometry_of(module)
    return None if geometry is None else geometry.patch


def _pair(values: tuple[int, ...]) -> Pair:
    first, second = values
    return first, second
