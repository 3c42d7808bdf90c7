"""Points that fill the unit cube evenly, on which kernels of differences modulo 1 or of digits have fast transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats.qmc import Sobol
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._points import Points, with_gradient
from eckart.linalg.hadamard import walsh_hadamard
from eckart.structures import Circulant, Dense, Diagonal, Hadamard, StructuredMatrix
from eckart.structures.compose import Chain

VECTOR = (
    1,
    678627,
    550873,
    650341,
    913587,
    1005665,
    382779,
    927339,
    606873,
    400361,
    533883,
    613783,
    413335,
    141793,
    99381,
    1019045,
    603689,
    620655,
    192263,
    157093,
    373195,
    709471,
    384441,
    604421,
    128311,
    889161,
    226641,
    187605,
    12959,
    774615,
    901615,
    853775,
)
"""Found component by component, from 60 odd numbers each: that of the least worst-case error of order 1 with weights
1 / j^2, taken by the best of the 60, at the worst of 2^4, 2^5, ..., 2^18 points."""
BITS = 52
"""Binary digits of a coordinate in [0, 1)."""
SCALE = float(2**BITS)


def _in_cube(shift: Any, dimensions: int) -> Tensor:
    held = torch.as_tensor(np.zeros(dimensions) if shift is None else np.asarray(shift), dtype=torch.float64)
    if held.shape != (dimensions,) or not bool(((held >= 0) & (held < 1)).all()):
        raise Refused(f"shift={shift} is no vector of {dimensions} numbers in [0, 1)")
    return held


class Lattice(Points):
    """x_i = i z / n + shift modulo 1 for i = 0, ..., n - 1.

    Of kernels that see the difference modulo 1 the Gram matrix is circulant. The points of n are those with even i of
    2 n, the shift being the same.

    Args:
        count: n.
        dimensions: d.
        shift: (d,), in [0, 1); zero where it is None.
        vector: z, d whole numbers; by default one that is good for n a power of two, of up to 32 dimensions.

    Raises:
        Refused: there are no points, or more dimensions than the vector has.
    """

    def __init__(self, count: int, dimensions: int, shift: Any = None, vector: Any = None) -> None:
        z = np.asarray(VECTOR[:dimensions] if vector is None else vector)
        if count < 1 or dimensions < 1 or z.shape != (dimensions,) or z.dtype.kind not in "iu":
            raise Refused(
                f"Lattice: {count} points in {dimensions} dimensions by a vector of {z.size} whole numbers; the "
                f"default one has {len(VECTOR)}, a longer one is vector="
            )
        self.count, self.vector, self.shift = int(count), z.astype(np.int64), _in_cube(shift, dimensions)

    def _unshifted(self) -> Tensor:
        steps = np.arange(self.count, dtype=np.int64)[:, None] * (self.vector % self.count) % self.count
        return torch.from_numpy(steps / self.count)

    def array(self) -> Tensor:
        x = self._unshifted() + self.shift
        return x - x.floor()

    def gram(self, kernel: Any) -> StructuredMatrix:
        if "torus" not in kernel.sees_only:
            return with_gradient(Dense, kernel(self.array()))
        x = self._unshifted()
        return with_gradient(Circulant, kernel(x, x[:1])[:, 0])

    def __len__(self) -> int:
        return self.count


class DigitalNet(Points):
    """The first 2^m points of Sobol's sequence in the order of their digits, and a shift of these digits.

    x_i xor x_j = x_(i xor j) but for the shift, so that of kernels that see the digits' difference the Gram matrix is a
    diagonal between two Walsh-Hadamard transforms. The points of n are the first ones of 2 n.

    Args:
        count: n, a power of two.
        dimensions: d.
        shift: (d,), in [0, 1): its digits are added to those of the points without carry; zero where it is None.

    Raises:
        Refused: n is no power of two.
    """

    def __init__(self, count: int, dimensions: int, shift: Any = None) -> None:
        if count < 1 or count & (count - 1) or not 1 <= dimensions <= Sobol.MAXDIM:
            raise Refused(f"DigitalNet: {count} points in {dimensions} dimensions: a power of two is needed")
        self.count, self.dimensions, self.shift = int(count), int(dimensions), _in_cube(shift, dimensions)

    def _unshifted(self) -> Tensor:
        # Sobol's engine goes by Gray's code, in which neighbours differ by one digit of i.
        i = np.arange(self.count)
        x = np.empty((self.count, self.dimensions))
        x[i ^ (i >> 1)] = Sobol(self.dimensions, scramble=False, bits=BITS).random(self.count)
        return torch.from_numpy(x)

    def array(self) -> Tensor:
        return digital_difference(self._unshifted(), self.shift)

    def gram(self, kernel: Any) -> StructuredMatrix:
        if "xor" not in kernel.sees_only:
            return with_gradient(Dense, kernel(self.array()))
        x = self._unshifted()
        values = walsh_hadamard(kernel(x, x[:1])[:, 0]) * self.count**0.5
        return Chain(Hadamard(self.count), with_gradient(Diagonal, values), Hadamard(self.count))

    def __len__(self) -> int:
        return self.count


def digital_difference(x: Tensor, z: Tensor) -> Tensor:
    """x xor z, digit by digit of the first 52 after the point; which is also the sum without carry.

    Args:
        x: in [0, 1), of any shape.
        z: in [0, 1), broadcast.

    Raises:
        Refused: a number is not in [0, 1).
    """
    for held in (x, z):
        if held.numel() and not (held.min() >= 0 and held.max() < 1):
            raise Refused(f"digits are of points in [0, 1), and these lie in {float(held.min()):g}..{held.max():g}")
    return ((x * SCALE).long() ^ (z * SCALE).long()).double() / SCALE
