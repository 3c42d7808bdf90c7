"""The module that stands in a model where a convolution stood."""

from __future__ import annotations

from torch import Tensor

from eckart.errors import Refused
from eckart.layouts.patches import Geometry
from eckart.models.modules import StructuredLinear
from eckart.structures.base import StructuredMatrix
from eckart.structures.convolve import convolve


def stand_in(structure: StructuredMatrix, bias: Tensor | None, geometry: Geometry | None) -> StructuredLinear:
    """What stands where a linear layer stood, or where a convolution did that met patches of that geometry."""
    return StructuredLinear(structure, bias) if geometry is None else StructuredConv2d(structure, bias, geometry)


class StructuredConv2d(StructuredLinear):
    """`y = W p + bias` for every patch p of an image, with W any structure; stands in for nn.Conv2d without groups.

    Attributes:
        structure: W (out channels, in channels * height * width), the filters flattened.
        bias: (out channels,) or None.
        geometry: where the patches lie.
    """

    def __init__(self, structure: StructuredMatrix, bias: Tensor | None, geometry: Geometry) -> None:
        super().__init__(structure, bias)
        height, width = geometry.patch
        if structure.shape[1] % (height * width):
            raise Refused(f"a matrix of shape {structure.shape} does not act on patches of {height} x {width}")
        self.geometry = geometry

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, channels, height, width), or one without n: the same with other channels, height and width."""
        images = x if x.ndim == 4 else x[None]
        y = convolve(self.structure, images, self.geometry)
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return y if x.ndim == 4 else y[0]
