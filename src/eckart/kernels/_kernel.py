"""Kernels: functions of two points that are inner products of features, and their sums, products and multiples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.kernels._fourier import FourierFeatures
from eckart.kernels._low_rank import low_rank_plus_diagonal
from eckart.kernels._parameters import _as_came, log_parameter, plain, points
from eckart.kernels._points import Points, with_gradient
from eckart.structures import Dense, StructuredMatrix

KINDS: dict[str, type[Kernel]] = {}
"""The classes of all kernels by their names, as files have them."""


class Kernel(nn.Module):
    """k(x, z), a function of pairs of inputs; called with n and m of them, the matrix of all pairs.

    A subclass says `_between`, and its `options`, by which it is copied and saved. Parameters are in float64, positive
    ones as their logarithms, so that any optimizer of torch may move them.

    Attributes:
        psd: whether every Gram matrix is positive semi-definite.
        sees_only: what of two points it depends on, where that is less than both: "difference", "torus" (the difference
            modulo 1), "xor" (the difference digit by digit in base 2). `Points` make structures of it.
    """

    psd: bool = True
    sees_only: frozenset[str] = frozenset()

    def __init_subclass__(cls) -> None:
        KINDS[cls.__name__] = cls

    @abstractmethod
    def _between(self, x: Any, z: Any) -> Tensor:
        """k (n, m) of checked inputs, in float64; z is x where the matrix is symmetric."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The constructor's arguments that make this kernel as it is now: numbers, text, lists, arrays, kernels."""

    def _diagonal(self, x: Any) -> Tensor:
        """k(x_i, x_i) (n,) of checked inputs."""
        each = [self._between(x[i : i + 1], x[i : i + 1])[0] for i in range(len(x))]
        return torch.cat(each) if each else torch.zeros(0, dtype=torch.float64)

    def _checked(self, x: Any) -> Any:
        """Inputs as `_between` takes them: points (n, d) in float64 unless a subclass says otherwise."""
        return points(x)

    def forward(self, x: Any, z: Any = None) -> Any:
        """k(x_i, z_j).

        Args:
            x: n inputs: points (n, d) for most kernels, an array or a tensor.
            z: m inputs; x where it is None.

        Returns:
            (n, m), in float64; an array where x is one, without gradients, else a tensor on its device.

        Raises:
            Refused: what comes are no inputs of this kernel, NaN or Inf, or of another number of dimensions than z.
        """
        x = x.array() if isinstance(x, Points) else x
        z = z.array() if isinstance(z, Points) else z
        first = self._checked(x)
        second = first if z is None else self._checked(z)
        if isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape[1:] != second.shape[1:]:
            raise Refused(f"inputs of shapes {tuple(first.shape)} and {tuple(second.shape)} are not of one space")
        return _as_came(self._between(first, second), x)

    def diag(self, x: Any) -> Any:
        """k(x_i, x_i), (n,), without the other pairs; kinds as in a call."""
        x = x.array() if isinstance(x, Points) else x
        return _as_came(self._diagonal(self._checked(x)), x)

    def gram(self, x: Any, *, rank: int | None = None, generator: torch.Generator | None = None) -> StructuredMatrix:
        """The Gram matrix of inputs as a structure, on which `linalg.solve`, `logdet`, `sample` and `eigh` have rules.

        Args:
            x: inputs; or `Points` that know where they lie, of which the Gram matrix of a kernel that sees no more is
                stored as a Kronecker product, a Toeplitz or circulant matrix, or a diagonal between Walsh transforms.
            rank: F F^T + D in its place, of F (n, rank) by rows that RPCholesky draws, and D what is left of the
                diagonal: n rank entries of the kernel are computed. Exact where the kernel has no higher rank. D is
                zero at the points that were drawn, so that `linalg.solve` and `logdet` want a `shift`.
            generator: of the draws.

        Returns:
            (n, n); gradients of what is made of it reach the parameters of the kernel.

        Raises:
            Refused: inputs as in a call; a rank below 1, or of words of sequences.
        """
        if isinstance(x, Points) and rank is None:
            return x.gram(self)
        checked = self._checked(x.array() if isinstance(x, Points) else x)
        if rank is None:
            return with_gradient(Dense, self._between(checked, checked))
        if not isinstance(checked, Tensor):
            raise Refused(f"rank={rank!r}: inputs of this {type(self).__name__} are no rows to draw from: leave it out")
        return low_rank_plus_diagonal(self, checked, rank, generator)

    def factors(self, dimensions: int) -> Sequence[Kernel]:
        """Kernels of one dimension each whose product this is, for `Grid`.

        Raises:
            Refused: it is no such product.
        """
        raise Refused(
            f"{type(self).__name__} is no product of kernels of one dimension each; take the points as they are"
        )

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (count, dimensions) from the spectral density of k(x - z) / k(0), in radians by the unit of x.

        k(x - z) / k(0) = E cos(w (x - z)) (Bochner's theorem), which is what random features are made of.

        Raises:
            Refused: there is none that is known.
        """
        raise Refused(f"{type(self).__name__} has no spectral density to draw frequencies from: take Nystroem")

    def features(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> FourierFeatures:
        """Random features: a module that takes points (n, dimensions) to phi (n, count), phi phi^T ~ the Gram matrix.

        Right on average; the deviation of an entry is k(0) (2 / count)^1/2 at most. `RandomFeatures` is the estimator,
        and has kinds of less variance.

        Args:
            count: an even number, a cosine and a sine for each of the `frequencies`.
            dimensions: of points.
            generator: of the draws.

        Raises:
            Refused: an odd count, or no spectral density that is known.
        """
        if not isinstance(count, int | np.integer) or count < 2 or count % 2:
            raise Refused(f"count={count!r} features: an even number, a cosine and a sine for each frequency")
        drawn = self.frequencies(int(count) // 2, dimensions, generator)
        return FourierFeatures(drawn, self.diag(drawn.new_zeros(1, dimensions))[0].detach())

    def frequencies_of(self, normals: Tensor, uniform: Tensor) -> Tensor:
        """Frequencies as `frequencies` draws them, (m, d), of numbers that come from elsewhere.

        Args:
            normals: (m, d), each as if normal, as orthogonal directions or points of low discrepancy are.
            uniform: (m,), between 0 and 1.

        Raises:
            Refused: the spectral density is not a normal one whose scale varies.
        """
        raise Refused(f"frequencies of {type(self).__name__} are no multiples of normal numbers: take kind='rff'")

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        """The derivative of k(t) by t, of a kernel of one dimension that sees only the signed difference t = x - z.

        In closed form: k'(0) and k''(0) are right, where differentiating |x - z| step by step gives zero.

        Args:
            t: differences, of any shape, float64.
            order: 0, 1 or 2.

        Raises:
            Refused: the kernel is of more dimensions, sees more, or is not so often differentiable.
        """
        raise Refused(f"{type(self).__name__} has no derivatives by one signed difference")

    def __add__(self, other: Any) -> Kernel:
        return Plus(self, other) if isinstance(other, Kernel) else NotImplemented

    def __radd__(self, other: Any) -> Kernel:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # where `sum` begins

    def __mul__(self, other: Any) -> Kernel:
        return Times(self, other) if isinstance(other, Kernel) else Multiple(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Kernel:
        return NotImplemented if isinstance(other, Kernel) else Multiple(self, 1 / other)

    def extra_repr(self) -> str:
        own = {name: np.asarray(value) for name, value in self.options().items() if not isinstance(value, Kernel)}
        return ", ".join(f"{name}={np.array2string(value, precision=4, threshold=6)}" for name, value in own.items())


class Multiple(Kernel):
    """c k(x, z) with c above zero.

    Args:
        kernel: k.
        factor: c.
    """

    def __init__(self, kernel: Kernel, factor: float) -> None:
        super().__init__()
        self.kernel, self.log_factor = kernel, log_parameter("Multiple", "factor", factor)
        self.sees_only, self.psd = kernel.sees_only, kernel.psd

    def options(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "factor": plain(self.log_factor.exp())}

    def _checked(self, x: Any) -> Any:
        return self.kernel._checked(x)

    def _between(self, x: Any, z: Any) -> Tensor:
        return self.log_factor.exp() * self.kernel._between(x, z)

    def _diagonal(self, x: Any) -> Tensor:
        return self.log_factor.exp() * self.kernel._diagonal(x)

    def factors(self, dimensions: int) -> Sequence[Kernel]:
        first, *rest = self.kernel.factors(dimensions)
        scaled = Multiple(first, 1.0)
        scaled.log_factor = self.log_factor
        return [scaled, *rest]

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        return self.kernel.frequencies(count, dimensions, generator)

    def frequencies_of(self, normals: Tensor, uniform: Tensor) -> Tensor:
        return self.kernel.frequencies_of(normals, uniform)

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        return self.log_factor.exp() * self.kernel.along(t, order)


class _Both(Kernel):
    """Two kernels of the same inputs."""

    def __init__(self, first: Kernel, second: Kernel) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.sees_only, self.psd = first.sees_only & second.sees_only, first.psd and second.psd

    def options(self) -> dict[str, Any]:
        return {"first": self.first, "second": self.second}

    def _checked(self, x: Any) -> Any:
        first, second = self.first._checked(x), self.second._checked(x)
        same = type(first) is type(second) and getattr(first, "dtype", None) == getattr(second, "dtype", None)
        if not same or getattr(first, "shape", None) != getattr(second, "shape", None):
            raise Refused(f"{type(self.first).__name__} and {type(self.second).__name__} are of different inputs")
        return first


class Plus(_Both):
    """k_1(x, z) + k_2(x, z)."""

    def _between(self, x: Any, z: Any) -> Tensor:
        return self.first._between(x, z) + self.second._between(x, z)

    def _diagonal(self, x: Any) -> Tensor:
        return self.first._diagonal(x) + self.second._diagonal(x)

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        """Each of one of the two, by chance with their shares of k(0)."""
        first, second = (each.frequencies(count, dimensions, generator) for each in (self.first, self.second))
        here, there = (each.diag(first.new_zeros(1, dimensions)).detach() for each in (self.first, self.second))
        drawn = torch.rand(count, generator=generator, dtype=torch.float64).to(first.device)
        return torch.where((drawn * (here + there) < here)[:, None], first, second)

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        return self.first.along(t, order) + self.second.along(t, order)


class Times(_Both):
    """k_1(x, z) k_2(x, z)."""

    def _between(self, x: Any, z: Any) -> Tensor:
        return self.first._between(x, z) * self.second._between(x, z)

    def _diagonal(self, x: Any) -> Tensor:
        return self.first._diagonal(x) * self.second._diagonal(x)

    def factors(self, dimensions: int) -> Sequence[Kernel]:
        pairs = zip(self.first.factors(dimensions), self.second.factors(dimensions), strict=True)
        return [Times(a, b) for a, b in pairs]

    def frequencies(self, count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
        both = (each.frequencies(count, dimensions, generator) for each in (self.first, self.second))
        return torch.stack(list(both)).sum(0)

    def along(self, t: Tensor, order: int = 0) -> Tensor:
        first, second = self.first, self.second
        terms = [comb(order, i) * first.along(t, i) * second.along(t, order - i) for i in range(order + 1)]
        return torch.stack(terms).sum(0)
