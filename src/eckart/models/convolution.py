"""The modules that stand in a model where a convolution stood, and what stands where any layer did."""

from __future__ import annotations

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.look_ups import scale_of
from eckart.layouts.patches import Geometry, geometry_of
from eckart.models.layers import is_conv1d
from eckart.models.modules import StructuredConv1D, StructuredEmbedding, StructuredLinear
from eckart.structures.base import StructuredMatrix
from eckart.structures.convolve import convolve


def stand_in(structure: StructuredMatrix, bias: Tensor | None, like: nn.Module) -> StructuredLinear:
    """What stands where a linear layer or a convolution stood, dense or structured itself."""
    geometry = geometry_of(like)
    if geometry is not None:
        return (StructuredConv1d if geometry.line else StructuredConv2d)(structure, bias, geometry)
    transposed = is_conv1d(like) or isinstance(like, StructuredConv1D)
    return (StructuredConv1D if transposed else StructuredLinear)(structure, bias)


def embedding_stand_in(structure: StructuredMatrix, like: nn.Embedding) -> StructuredEmbedding:
    """What stands where an embedding stood."""
    return StructuredEmbedding(structure, scale_of(like), like.padding_idx)


class StructuredConv2d(StructuredLinear):
    """`y = W p + bias` for every patch p of an image, with W any structure; stands in for nn.Conv2d without groups.

    Attributes:
        structure: W (out channels, in channels * height * width), the filters flattened.
        bias: (out channels,) or None.
        geometry: where the patches lie.
    """

    groups = 1
    padding_mode = "zeros"
    transposed = False

    def __init__(self, structure: StructuredMatrix, bias: Tensor | None, geometry: Geometry) -> None:
        super().__init__(structure, bias)
        height, width = geometry.patch
        if structure.shape[1] % (height * width):
            raise Refused(f"a matrix of shape {structure.shape} does not act on patches of {height} x {width}")
        self.geometry = geometry

    def _of_image(self, pair: tuple[int, int]) -> tuple[int, ...]:
        return pair[1:] if self.geometry.line else pair

    @property
    def in_channels(self) -> int:
        height, width = self.geometry.patch
        return self.structure.shape[1] // (height * width)

    @property
    def out_channels(self) -> int:
        return self.structure.shape[0]

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self._of_image(self.geometry.patch)

    @property
    def stride(self) -> tuple[int, ...]:
        return self._of_image(self.geometry.stride)

    @property
    def dilation(self) -> tuple[int, ...]:
        return self._of_image(self.geometry.dilation)

    @property
    def output_padding(self) -> tuple[int, ...]:
        return self._of_image((0, 0))

    @property
    def padding(self) -> tuple[int, ...] | str:
        (above, below), (left, right) = self.geometry.padding
        return self._of_image((above, left)) if above == below and left == right else "same"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels, *self.kernel_size

    def as_stored(self, matrix: Tensor) -> Tensor:
        return matrix.reshape(self.stored_shape)

    def multiplied(self, x: Tensor) -> Tensor | None:
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, channels, height, width) or sequences (n, channels, length), or one without n; gives the like."""
        y = convolve(self.structure, self.geometry.images(x), self.geometry)
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return self.geometry.as_given(y, x)


class StructuredConv1d(StructuredConv2d):
    """Stands in for nn.Conv1d without groups: its sequences are images of one row."""
