"""The candidates of a quantizer for one matrix: the same fit at 2, 3, 4, 5, 6 and 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from eckart.methods.registry import Fitted
from eckart.metrics import Metric
from eckart.structures.base import Cost
from eckart.structures.quantized import Quantized, finite_matrix

SIZES = (2, 3, 4, 5, 6, 8)


class Bits:
    """A family of quantized matrices; costs are known at once, a candidate is fitted when it is asked for.

    Fits are not kept: six candidates of every matrix would outweigh the model.

    Args:
        weight: (out, in), floating point and finite.
        fit: bits -> affine Quantized of `weight` with groups of `group`; called again for the same bits, it must
            give the same result.
        metric: what `errors` is measured in.
        group: inputs that share a scale.

    Raises:
        ValueError: weight has NaN or Inf entries.
    """

    sizes: Sequence[int] = SIZES

    def __init__(self, weight: Tensor, fit: Callable[[int], Quantized], metric: Metric, group: int) -> None:
        self._weight = finite_matrix(weight)
        self._fit = fit
        self._metric = metric
        shape = (weight.shape[0], weight.shape[1])
        self.costs: Sequence[Cost] = [Quantized.empty(shape, b, group, weight.dtype).cost() for b in self.sizes]

    @cached_property
    def errors(self) -> Tensor:
        """Squared error of each size in the metric, float64, (len(sizes),); fits all sizes.

        Where more bits come out worse than fewer (weights that already lie on a grid of fewer bits do that), the error
        of the fewer is stated, and `build` then returns those.
        """
        return self._measured.cummin(0).values

    @cached_property
    def _measured(self) -> Tensor:
        weight = self._weight.double()
        return torch.stack([self._metric.error(weight - self._fit(b).to_dense().double()) for b in self.sizes])

    @property
    def zero_error(self) -> float:
        return float(self._metric.error(self._weight.double()))

    def build(self, size: int) -> Fitted:
        """The candidate of `size` bits; once `errors` was read, the best candidate of at most `size` bits."""
        if size not in self.sizes:
            raise ValueError(f"there is no candidate of {size!r} bits; there are {', '.join(map(str, self.sizes))}")
        if "_measured" in self.__dict__:
            size = self.sizes[int(self._measured[: self.sizes.index(size) + 1].argmin())]
        structure = self._fit(size)
        error = self._metric.error(self._weight.double() - structure.to_dense().double())
        return Fitted(structure, None, float(error))
