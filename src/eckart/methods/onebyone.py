"""The family of candidates that have nothing in common: each size of one matrix is fitted on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from eckart.methods.registry import Fitted
from eckart.metrics import Metric
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.quantized import Quantized, finite_matrix

BITS = (2, 3, 4, 5, 6, 8)


class OneByOne:
    """Candidates whose costs are known at once and which are fitted when they are asked for.

    Fits are not kept: the candidates of every matrix would outweigh the model.

    Args:
        weight: (out, in), floating point and finite.
        sizes: in ascending order of their bytes.
        cost: of the candidate of a size.
        fit: the candidate of a size, in the dtype of `weight`; called again for the same size, it must give the same.
        metric: what `errors` is measured in.

    Raises:
        ValueError: weight has NaN or Inf entries.
    """

    def __init__(
        self,
        weight: Tensor,
        sizes: Sequence[int],
        cost: Callable[[int], Cost],
        fit: Callable[[int], StructuredMatrix],
        metric: Metric,
    ) -> None:
        self._weight = finite_matrix(weight)
        self._fit = fit
        self._metric = metric
        self.sizes = sizes
        self.costs: Sequence[Cost] = [cost(size) for size in sizes]

    @cached_property
    def errors(self) -> Tensor:
        """Squared error of each size in the metric, float64, (len(sizes),); fits all sizes.

        Where a larger candidate comes out worse than a smaller one (weights that already lie on a grid of fewer bits
        do that), the error of the smaller is stated, and `build` then returns that one.
        """
        return self._measured.cummin(0).values

    @cached_property
    def _measured(self) -> Tensor:
        errors = [self._error(self._fit(size)) for size in self.sizes]
        return torch.stack(errors) if errors else torch.zeros(0, dtype=torch.float64)

    def _error(self, structure: StructuredMatrix) -> Tensor:
        return self._metric.error(self._weight.double() - structure.to_dense().double())

    @property
    def zero_error(self) -> float:
        return float(self._metric.error(self._weight.double()))

    def build(self, size: int) -> Fitted:
        """The candidate of a size; once `errors` was read, the best candidate of at most that size."""
        if size not in self.sizes:
            raise ValueError(f"there is no such candidate; there are {', '.join(map(str, self.sizes))}")
        if "_measured" in self.__dict__:
            size = self.sizes[int(self._measured[: self.sizes.index(size) + 1].argmin())]
        structure = self._fit(size)
        return Fitted(structure, None, float(self._error(structure)))


def bits_family(weight: Tensor, fit: Callable[[int], Quantized], metric: Metric, group: int) -> OneByOne:
    """The same fit at 2, 3, 4, 5, 6 and 8 bits: `fit(bits)` gives an affine Quantized with groups of `group` inputs."""
    shape = (finite_matrix(weight).shape[0], weight.shape[1])

    def cost(bits: int) -> Cost:
        return Quantized.empty(shape, bits, group, weight.dtype).cost()

    return OneByOne(weight, BITS, cost, fit, metric)
