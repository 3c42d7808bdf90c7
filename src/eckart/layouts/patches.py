"""Where the patches of an image lie that a convolution multiplies by its matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The patches of an image (channels, height, width), one for each output position.

    Attributes:
        patch: height and width of a patch; its entries are numbered channel by channel, row by row.
        stride: rows and columns from one patch to the next.
        padding: rows of zeros above and below the image, columns of zeros to the left and to the right of it.
        dilation: rows and columns from one entry of a patch to the next.
        line: the images are sequences (channels, length), which are looked at as images of one row.
    """

    patch: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    line: bool = False

    def images(self, x: Tensor) -> Tensor:
        """What a convolution was given, or gave, as images (n, channels, height, width), also if it was one."""
        x = x.unsqueeze(-2) if self.line else x
        return x if x.ndim == 4 else x[None]

    def as_given(self, images: Tensor, x: Tensor) -> Tensor:
        """Images in the form of what the convolution was given."""
        y = images.squeeze(-2) if self.line else images
        return y if y.ndim == x.ndim else y[0]

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


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is one matrix over zero-padded patches: an nn.Conv2d or nn.Conv1d without groups.

    Not their subclasses, which may do more with a weight than multiply by it.
    """
    if not isinstance(module, nn.Conv1d | nn.Conv2d) or type(module) not in (nn.Conv1d, nn.Conv2d):
        return False
    return module.groups == 1 and module.padding_mode == "zeros"


def geometry_of(module: nn.Module) -> Geometry | None:
    """The patches that a convolution meets, dense or structured; None for a module that is no such convolution."""
    if not is_convolution(module):
        geometry = getattr(module, "geometry", None)
        return geometry if isinstance(geometry, Geometry) else None
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    line = isinstance(module, nn.Conv1d)
    # A sequence is an image of one row.
    size, dilation = (_pair(values, 1) for values in (module.kernel_size, module.dilation))
    if module.padding == "same":
        total = [(n - 1) * step for n, step in zip(size, dilation, strict=True)]
        padding = [(t // 2, t - t // 2) for t in total]
    elif module.padding == "valid":
        padding = [(0, 0), (0, 0)]
    else:
        padding = [(p, p) for p in _pair(tuple(map(int, module.padding)), 0)]
    return Geometry(size, _pair(module.stride, 1), (padding[0], padding[1]), dilation, line)


def patch_of(module: nn.Module) -> Pair | None:
    """Height and width of the patches of a convolution, dense or structured; None for any other module."""
    geometry = geometry_of(module)
    return None if geometry is None else geometry.patch


def _pair(values: tuple[int, ...], first: int) -> Pair:
    """Both of two values; what a row of one value says of the image it is."""
    *above, last = values
    return (above[0] if above else first), last
