"""Points that know where they lie, even samples and grids, and what their Gram matrices are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.structures import Dense, Interleaved, Kronecker, Repeated, StructuredMatrix, Toeplitz
from eckart.structures.compose import Chain


class Points(ABC):
    """Points (n, d) of which it is known how they lie."""

    @abstractmethod
    def array(self) -> Tensor:
        """The points (n, d), float64."""

    @abstractmethod
    def gram(self, kernel: Any) -> StructuredMatrix:
        """The Gram matrix of a kernel, as a structure where the kernel sees no more than one allows."""

    def __len__(self) -> int:
        return len(self.array())


class Even(Points):
    """start, start + step, ...: n points of one dimension, on which a stationary kernel has a Toeplitz matrix.

    Args:
        start: the first.
        step: between two of them, not zero.
        count: n, at least 1.

    Raises:
        Refused: there are none, or they coincide.
    """

    def __init__(self, start: float, step: float, count: int) -> None:
        numbers = all(isinstance(each, int | float | np.number) for each in (start, step, count))
        if not numbers or count != int(count) or count < 1 or not step or step - step != 0 or start - start != 0:
            raise Refused(f"start={start}, step={step}, count={count}: one point or more, a step that is not zero")
        self.start, self.step, self.count = float(start), float(step), int(count)

    def array(self) -> Tensor:
        return (self.start + self.step * torch.arange(self.count, dtype=torch.float64))[:, None]

    def gram(self, kernel: Any) -> StructuredMatrix:
        x = self.array() - self.start
        if "difference" not in kernel.sees_only:
            return with_gradient(Dense, kernel(self.array()))
        column = kernel(x, x[:1])[:, 0]
        return with_gradient(Toeplitz, torch.cat([column[1:].flip(0), column]), columns=self.count)

    def __len__(self) -> int:
        return self.count


class Grid(Points):
    """All combinations of points of one dimension each, the last axis running fastest.

    The Gram matrix of a product of kernels, one a dimension, is a Kronecker product.

    Args:
        axes: for each dimension `Points` of one dimension, or numbers (n_i,).

    Raises:
        Refused: there is no axis, or one is not of one dimension.
    """

    def __init__(self, *axes: Any) -> None:
        if not axes:
            raise Refused("a grid has at least one axis")
        self.axes = [axis if isinstance(axis, Points) else Scattered(axis) for axis in axes]
        for axis in self.axes:
            if axis.array().shape[1] != 1:
                raise Refused(f"an axis of a grid is of one dimension, got points {tuple(axis.array().shape)}")

    def array(self) -> Tensor:
        return torch.cartesian_prod(*[axis.array()[:, 0] for axis in self.axes]).reshape(len(self), len(self.axes))

    def gram(self, kernel: Any) -> StructuredMatrix:
        if len(self.axes) == 1:
            return self.axes[0].gram(kernel)
        each = [axis.gram(factor) for axis, factor in zip(self.axes, kernel.factors(len(self.axes)), strict=True)]
        return _product(each)

    def __len__(self) -> int:
        n = 1
        for axis in self.axes:
            n *= len(axis)
        return n


class Scattered(Points):
    """Points that lie anywhere.

    Args:
        x: (n, d); numbers (n,) are points of one dimension.
    """

    def __init__(self, x: Any) -> None:
        try:
            held = torch.as_tensor(x, dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise Refused(f"{x!r:.80} are no points: numbers (n,) or (n, d) are needed") from error
        self._x = held[:, None] if held.ndim == 1 else held

    def array(self) -> Tensor:
        return self._x

    def gram(self, kernel: Any) -> StructuredMatrix:
        return with_gradient(Dense, kernel(self._x))


def _product(matrices: Sequence[StructuredMatrix]) -> StructuredMatrix:
    """A kron B kron ..., as a Kronecker product of two dense ones and A kron I times I kron (...) of more."""
    first, *rest = matrices
    if not rest:
        return first
    if len(rest) == 1:
        return _kronecker(first.to_dense(), rest[0].to_dense())
    inner = _product(rest)
    return Chain(Interleaved(first, copies=inner.shape[0]), Repeated(inner, copies=first.shape[0]))


def _kronecker(left: Tensor, right: Tensor) -> StructuredMatrix:
    made = Kronecker(left.detach(), right.detach())
    return _with_history(made, {"left": left, "right": right})


def with_gradient(kind: Callable[..., StructuredMatrix], leaf: Tensor, **options: Any) -> StructuredMatrix:
    """A structure whose only leaf is a tensor that was computed, with its history: gradients pass through it."""
    made = kind(leaf.detach(), **options)
    (name,) = made.leaves()
    return _with_history(made, {name: leaf})


def _with_history(made: StructuredMatrix, leaves: dict[str, Tensor]) -> StructuredMatrix:
    made.requires_grad_(False)
    for name, leaf in leaves.items():
        made._parameters[name] = leaf  # type: ignore[assignment]
    return made
