"""A matrix whose input is rounded before it is multiplied."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eckart.errors import Refused
from eckart.ops.input_rounding import round_float8, round_symmetric
from eckart.ops.native.products import Product
from eckart.ops.native.quantized import ROUNDED
from eckart.structures._checks import size_option
from eckart.structures.base import StructuredMatrix, structure
from eckart.structures.quantized import Quantized

INPUT_BITS = range(2, 9)


class InputRounding(StructuredMatrix):
    """y = W_1 q(x), q rounding each token by itself: no matrix. `exact_input` takes the rounding off.

    Args:
        matrix: W_1, (out, in).
    """

    bits: int

    def __init__(self, matrix: StructuredMatrix) -> None:
        if not isinstance(matrix, StructuredMatrix):
            raise TypeError(f"rounded inputs take a structure, got {type(matrix).__name__}; wrap a tensor in Dense")
        super().__init__(matrix.shape)
        self.matrix = matrix

    @property
    def linear(self) -> bool:
        return False

    def operands(self) -> list[StructuredMatrix]:
        return [self.matrix]

    def rounded(self, x: Tensor) -> Tensor:
        """q(x), (..., in)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix.forward(self.rounded(x))


@structure("rounded-input")
class RoundedInput(InputRounding):
    """y = W_1 q(x), q rounding each token to symmetric integers of a few bits times a scale of its own: no matrix.

    The scale of a token, or of each run of `group` inputs of one, is `max|x| / (2^(bits-1) - 1)`; see
    `ops.input_rounding`. No token's scale depends on another token. `exact_input` takes the rounding off.

    Args:
        matrix: W_1, (out, in).
        bits: of an integer, 2 to 8.
        group: consecutive inputs that share a scale; None for one scale a token.
    """

    def __init__(self, matrix: StructuredMatrix, *, bits: int = 8, group: int | None = None) -> None:
        super().__init__(matrix)
        if size_option("RoundedInput", "bits", bits) not in INPUT_BITS:
            raise Refused(f"RoundedInput: bits must be 2 to 8, got {bits}")
        columns = self.shape[1]
        self.bits = bits
        self.group = columns if group is None else min(size_option("RoundedInput", "group", group), columns)

        self._product = Product(ROUNDED)

    def options(self) -> dict[str, Any]:
        return {"bits": self.bits, "group": self.group}

    def rounded(self, x: Tensor) -> Tensor:
        return round_symmetric(x, self.bits, self.group)

    def forward(self, x: Tensor) -> Tensor:
        y = self._as_integers(x)
        return super().forward(x) if y is None else y

    def _as_integers(self, x: Tensor) -> Tensor | None:
        """The product of integers with codes, where compiled code has it: one token, with one scale."""
        matrix = self._modules["matrix"]
        if not isinstance(matrix, Quantized) or self.group != self.shape[1]:
            return None
        return self._product(x, matrix.in_memory(), (matrix.bits, matrix.group, matrix.columns, self.bits))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, inputs of {self.bits} bits in groups of {self.group}"


@structure("float8-input")
class Float8Input(InputRounding):
    """y = W_1 q(x), q rounding each token to numbers of 8 bits (E4M3) times a scale of its own: no matrix.

    The scale is `max|x| / 448` in bfloat16. `exact_input` takes the rounding off.

    Args:
        matrix: W_1, (out, in).
    """

    bits = 8

    def rounded(self, x: Tensor) -> Tensor:
        return round_float8(x)


def exact_input(matrix: StructuredMatrix) -> StructuredMatrix:
    """A structure over the same tensors that multiplies by its input as it is, and is a matrix where that is all."""
    if isinstance(matrix, InputRounding):
        return exact_input(matrix.matrix)
    if not any(isinstance(part, InputRounding) for part in matrix.modules()):
        return matrix
    build: Any = type(matrix)
    made: StructuredMatrix = build(*map(exact_input, matrix.operands()), **matrix.leaves(), **matrix.options())
    return made


def input_bits(matrix: StructuredMatrix) -> int | None:
    """The fewest bits that inputs are rounded to anywhere in a structure; None where they are not."""
    found = [part.bits for part in matrix.modules() if isinstance(part, InputRounding)]
    return min(found, default=None)
