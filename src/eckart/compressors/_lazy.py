"""Candidates whose errors are learned one at a time, many of them judged by a few."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from eckart.metrics import Metric
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.multiplied import multiply
from eckart.structures.quantized import finite_matrix
from eckart.structures.rounded_input import exact_input

TIE = 1e-9
"""How much worse than the zero matrix a candidate may come out that is just as good, rounding being what it is."""


class Measured:
    """What families of one matrix share whose candidates are measured when their errors are asked for.

    Args:
        weight: (out, in), floating point and finite.
        sample: inputs (tokens, in), for structures that round theirs.

    Attributes:
        sizes, costs: of the candidates, in ascending order of their bytes.
        known: squared error of the sizes measured so far.

    Raises:
        Refused: weight has NaN or Inf entries.
    """

    sizes: Sequence[int]
    costs: Sequence[Cost]

    def __init__(self, weight: Tensor, sample: Tensor | None = None) -> None:
        self._weight = finite_matrix(weight)
        self._sample = sample
        self.known: dict[int, float] = {}

    @property
    def metric(self) -> Metric:
        """What errors are measured in."""
        raise NotImplementedError

    def candidate(self, size: int) -> StructuredMatrix:
        """The structure of a size, in the dtype of the weight."""
        raise NotImplementedError

    def estimates(self) -> Tensor:
        """The errors of all sizes judged from those in `known`; measures a few sizes where none is known."""
        raise NotImplementedError

    def measure(self, size: int) -> None:
        """Fits a size to learn its error."""
        self.known[size] = self.sound(size)[1]

    def sound(self, size: int) -> tuple[StructuredMatrix, float]:
        """The structure of a size and its squared error, no worse than the zero matrix.

        What a method makes in one metric may be worse than nothing in another, and inputs that are all alike send it
        astray. Zeros take its place then, in the same storage.
        """
        structure, known = self.candidate(size), self.known.get(size, math.inf)
        if known < self.zero_error:
            return structure, known
        error = self.error_of(exact_input(structure).to_dense().detach()) + self.rounding_error(structure)
        if not error <= self.zero_error * (1 + TIE):
            multiply(structure, None)
        return structure, error if error < self.zero_error else self.zero_error

    def rounding_error(self, structure: StructuredMatrix) -> float:
        """What rounded inputs add to the squared error of a token: the mean over the sample of ||S(x) - S x||^2."""
        if structure.linear:
            return 0.0
        assert self._sample is not None, "structures that round their inputs are fitted with a sample of them"
        exact = torch.promote_types(self._weight.dtype, torch.float32)
        wide, x = copy.deepcopy(structure).to(exact), self._sample.to(exact)
        with torch.no_grad():
            difference = wide(x) - exact_input(wide)(x)
        return float(difference.double().square().sum(1).mean())

    def measure_all(self) -> None:
        """Fits all sizes whose errors are not known."""
        for size in self.sizes:
            if size not in self.known:
                self.measure(size)

    @property
    def errors(self) -> Tensor:
        """Squared error of each size in the metric, float64, (len(sizes),); fits all sizes."""
        self.measure_all()
        return self.estimates()

    def error_of(self, dense: Tensor) -> float:
        """Squared error of a matrix (out, in) in the place of W."""
        exact = torch.promote_types(self._weight.dtype, torch.float32)
        return float(self.metric.error(self._weight.to(exact) - dense.to(exact)))

    def _difference(self, structure: StructuredMatrix) -> Tensor:
        """W - What, in at least float32."""
        exact = torch.promote_types(self._weight.dtype, torch.float32)
        return self._weight.to(exact) - exact_input(structure).to_dense().detach().to(exact)

    @cached_property
    def zero_error(self) -> float:
        """Squared error of the zero matrix."""
        return float(self.metric.error(self._weight))


def middle(sizes: Sequence[int]) -> int:
    """The size that is measured first, the others being judged by it."""
    return sizes[(len(sizes) - 1) // 2]


def interpolated(sizes: Sequence[int], expected: Callable[[int], float], known: Mapping[int, float]) -> Tensor:
    """Errors of all sizes, non-increasing, from those of some.

    The logarithm of the error is linear in the logarithm of the expected one between two sizes that are known, and the
    ratio of both stays what it is outside of them.

    Args:
        sizes: ascending, (k,).
        expected: positive and falling.
        known: of one size at least, where there are any sizes.

    Returns:
        Float64, (k,); of known sizes the least error known up to there.
    """
    if not sizes:
        return torch.zeros(0, dtype=torch.float64)
    level = np.log([expected(size) for size in sizes])
    at = [i for i, size in enumerate(sizes) if size in known]
    error = np.minimum.accumulate([known[sizes[i]] for i in at])
    ratio = np.log(np.maximum(error, 1e-300)) - level[at]
    least = np.append(error, 0.0)[np.searchsorted(at, np.arange(len(sizes)))]
    found = np.maximum(np.exp(level + np.interp(-level, -level[at], ratio)), least)
    found[at] = error
    return torch.from_numpy(np.minimum.accumulate(found))
