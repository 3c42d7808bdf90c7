"""A matrix whose input is rounded to odd integers, which are sums of signs, before it is multiplied."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eckart.errors import Refused
from eckart.ops.input_rounding import round_odd
from eckart.ops.native.binary_coded import BIT_PLANES
from eckart.ops.native.products import Product
from eckart.structures._checks import size_option
from eckart.structures.base import StructuredMatrix, structure
from eckart.structures.binary_coded import BinaryCoded
from eckart.structures.rounded_input import InputRounding

BIPOLAR_BITS = range(1, 9)


@structure("bipolar-input")
class BipolarInput(InputRounding):
    """y = W_1 q(x), q rounding each token to odd integers `sum_j 2^j X_j`, X_j in {-1, 1}, times a scale of its own.

    Odd integers below `2^bits` lie evenly around zero and need no bit for the sign; zero is none of them. See
    `ops.input_rounding.odd_integers`. No token's scale depends on another token. `exact_input` takes the rounding off.

    One token of q bits times a `BinaryCoded` of p planes is computed by counting the bits in which planes of x and of W
    differ, where p q is at most 4, on a CPU and where no gradient is wanted.

    Args:
        matrix: W_1, (out, in).
        bits: of an integer, 1 to 8.
    """

    def __init__(self, matrix: StructuredMatrix, *, bits: int = 8) -> None:
        super().__init__(matrix)
        if size_option("BipolarInput", "bits", bits) not in BIPOLAR_BITS:
            raise Refused(f"BipolarInput: bits must be 1 to 8, got {bits}")
        self.bits = bits
        self._product = Product(BIT_PLANES)

    def options(self) -> dict[str, Any]:
        return {"bits": self.bits}

    def rounded(self, x: Tensor) -> Tensor:
        return round_odd(x, self.bits)

    def forward(self, x: Tensor) -> Tensor:
        y, matrix = None, self._modules["matrix"]
        if isinstance(matrix, BinaryCoded):
            y = self._product(x, matrix.in_memory(), (matrix.group, matrix.columns, matrix.planes, self.bits))
        return super().forward(x) if y is None else y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, inputs of {self.bits} bits"
