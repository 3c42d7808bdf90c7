"""The family of candidates that have nothing in common: each size of one matrix is fitted on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from eckart.compressors._lazy import Measured, interpolated, middle
from eckart.compressors.contract import Fitted
from eckart.errors import Refused
from eckart.metrics import Metric
from eckart.structures._checks import size_option
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost

BITS = (2, 3, 4, 5, 6, 8)
ROUNDING = 1e-12
"""A difference of squared errors, relative to that of the zero matrix, that is none."""
T = TypeVar("T")


class Once(Generic[T]):
    """What the candidates of a matrix share: made when it is first asked for, and left out when it is pickled."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None

    def __call__(self) -> T:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_made": None}


class OneByOne(Measured):
    """Candidates whose costs are known at once and which are fitted when they are asked for.

    Fits are not kept: the candidates of every matrix would outweigh the model.

    Args:
        weight: (out, in), floating point and finite.
        sizes: in ascending order of their bytes.
        cost: of the candidate of a size.
        fit: the candidate of a size, in the dtype of `weight`; called again for the same size, it must give the same.
        metric: what `errors` is measured in.
        expected: what the error of a size is about proportional to, falling; None where that is not known.
        sample: inputs (tokens, in), for candidates that round theirs.

    Raises:
        Refused: weight has NaN or Inf entries.
    """

    def __init__(
        self,
        weight: Tensor,
        sizes: Sequence[int],
        cost: Callable[[int], Cost],
        fit: Callable[[int], StructuredMatrix],
        metric: Metric,
        expected: Callable[[int], float] | None = None,
        sample: Tensor | None = None,
    ) -> None:
        super().__init__(weight, sample)
        self._metric = metric
        self._fit = fit
        self.expected = expected
        self.sizes = sizes
        self._costs = {size: cost(size) for size in sizes}

    @property
    def metric(self) -> Metric:
        return self._metric

    @property
    def costs(self) -> Sequence[Cost]:  # type: ignore[override]
        """The cost of what `build` returns for each size."""
        return [self._costs[self._best(size)] for size in self.sizes]

    @property
    def held_bytes(self) -> int:
        """What the candidates share takes at most, in float32."""
        return 4 * self._weight.shape[1] ** 2

    def candidate(self, size: int) -> StructuredMatrix:
        return self._fit(size)

    def estimates(self) -> Tensor:
        """As `errors`, but of the sizes that were not measured what `interpolated` says; one at least is measured.

        Where a larger candidate comes out worse than a smaller one (weights that already lie on a grid of fewer bits
        do that), the error of the smaller is stated, and `build` then returns that one.
        """
        if self.expected is None:
            self.measure_all()
            return torch.tensor([self.known[size] for size in self.sizes], dtype=torch.float64).cummin(0).values
        if self.sizes and not self.known:
            self.measure(middle(self.sizes))
        return interpolated(self.sizes, self.expected, self.known)

    def build(self, size: int) -> Fitted:
        """The candidate of a size; where that was measured, a smaller one that was measured to be better instead."""
        if size not in self.sizes:
            there = f"there are {', '.join(map(str, self.sizes))}" if self.sizes else "none would be smaller"
            raise Refused(f"there is no candidate of size {size!r}; {there}")
        structure, error = self.sound(self._best(size))
        return Fitted(structure, None, error)

    def _best(self, size: int) -> int:
        """Of the sizes up to that one the largest that is as good as any, if that one was measured."""
        if size not in self.known:
            return size
        known = [(s, self.known[s]) for s in self.sizes[: self.sizes.index(size) + 1] if s in self.known]
        least = min(error for _, error in known) + ROUNDING * self.zero_error
        return max(s for s, error in known if error <= least)


def paying(weight: Tensor, sizes: Sequence[int], cost: Callable[[int], Cost]) -> list[int]:
    """Those of the sizes whose candidates take fewer bytes than the weight as it is."""
    return [size for size in sizes if cost(size).bytes < weight.numel() * weight.element_size()]


def bits_family(
    weight: Tensor, fit: Callable[[int], Quantized], metric: Metric, group: int, symmetric: bool = False
) -> OneByOne:
    """The same fit at 2, 3, 4, 5, 6 and 8 bits: `fit(bits)` gives a Quantized with groups of `group` inputs."""
    weight, group = finite_matrix(weight), size_option("Quantized", "group", group)

    def cost(bits: int) -> Cost:
        return quantized_cost(weight.shape, bits, group, weight.dtype, symmetric=symmetric)

    return OneByOne(weight, BITS, cost, fit, metric, rounding)


def rounding(bits: int) -> float:
    """What the squared error of rounding is proportional to: the square of the distance between two levels."""
    return 4.0**-bits
