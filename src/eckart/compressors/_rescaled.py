"""A family fitted to a matrix that was scaled by a power of two, as one of the matrix itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from math import frexp

import torch
from torch import Tensor

from eckart.compressors._candidates import Family, Fitted, Lazy
from eckart.errors import Refused
from eckart.ops.powers_of_two import times_power
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.multiplied import multiply
from eckart.structures.rounded_input import exact_input

MOST = 16
"""Candidates at most that are offered of a matrix at an end of its dtype, where each is built to see if it fits."""
LOST = 1e-3
"""Of its norm an approximation may lose at most so much where its smallest entries vanish."""
ZEROS = 1e-12
"""Of the error of zeros; what errs less than this below it is zeros, but for rounding."""
DIGITS = 24
"""Powers of two above the smallest normal number below which leaves of an approximation may lose digits."""


def paying(costs: Sequence[Cost], weight: Tensor) -> list[int]:
    """Positions of the candidates that take no more bytes than the dense matrix, nor than one behind them."""
    kept: list[int] = []
    least = weight.numel() * weight.element_size()
    for i in range(len(costs) - 1, -1, -1):
        if costs[i].bytes <= least:
            kept, least = [i, *kept], costs[i].bytes
    return kept


def orderly(family: Family, weight: Tensor) -> bool:
    """Whether all candidates pay, and their bytes ascend."""
    return len(paying(family.costs, weight)) == len(family.sizes)


class Rescaled:
    """The candidates of a family for W / 2^k, multiplied by 2^k; see `eckart.compressors.contract.Family`.

    What is larger than the dense matrix is not offered, nor, near an end of the dtype, what it cannot hold.

    Args:
        family: fitted to W / 2^k.
        weight: W (out, in), finite.
        exponent: k.
        inputs: the exponent of an input, by which a bias is larger too.
        errors: that of a squared error.
    """

    def __init__(self, family: Family, weight: Tensor, exponent: int, inputs: int, errors: int) -> None:
        self.inner = family
        self._weight, self._exponent, self._inputs, self._by = weight, exponent, inputs, errors

    @cached_property
    def _offered(self) -> list[int]:
        """Positions among the sizes of the inner family."""
        every = paying(self.inner.costs, self._weight)
        if not self._at_an_end:
            return every
        some = every[:: max(1, -(-len(every) // MOST))]
        offered = [i for i in some if self._stored(self.inner.sizes[i]) is not None]
        self._leave_out([size for i, size in enumerate(self.inner.sizes) if i not in offered])
        return offered

    def _leave_out(self, sizes: Sequence[int]) -> None:
        """Called with what is not offered near an end of the dtype."""

    @property
    def _at_an_end(self) -> bool:
        """Whether what is built may leave the range of the dtype."""
        limits, largest = torch.finfo(self._weight.dtype), float(self._weight.abs().max())
        small = 0 < largest < limits.smallest_normal * 2.0**DIGITS
        of_bias = frexp(largest)[1] + self._inputs + self._weight.shape[1].bit_length()
        return small or largest > limits.max / 2.0**DIGITS or of_bias > frexp(limits.max)[1]

    def _stored(self, size: int) -> Fitted | None:
        """The candidate of a size; None where the dtype does not hold it."""
        fitted = self.inner.build(size)
        before = exact_input(fitted.structure).to_dense().detach() if self._at_an_end else None
        of_inputs = self._of_inputs(fitted) if self._at_an_end else 0.0
        bias = None if fitted.bias is None else times_power(fitted.bias, self._exponent + self._inputs)
        if self._exponent:
            multiply(fitted.structure, self._exponent)
        error: float | None = fitted.error
        if before is not None:
            after = times_power(exact_input(fitted.structure).to_dense().detach().double(), -self._exponent)
            error = self._error(size, fitted.error, before.double(), after, of_inputs)
        try:
            return None if error is None else Fitted(fitted.structure, bias, self._original(error))
        except Refused:
            return None

    def _of_inputs(self, fitted: Fitted) -> float:
        """What of the error of a candidate is due to inputs that it rounds."""
        return 0.0

    def _error(self, size: int, error: float, before: Tensor, after: Tensor, of_inputs: float) -> float | None:
        """The error of a candidate that the dtype made another matrix of, both at the inner scale; None if too much."""
        lost = float((before - after).norm())
        return error if lost <= LOST * float(before.norm()) else None

    def _original(self, error: float) -> float:
        return float(times_power(torch.tensor(error, dtype=torch.float64), self._by))

    @property
    def unheld(self) -> str:
        """Why there is no candidate, where that is because the dtype holds none; else ""."""
        if not paying(self.inner.costs, self._weight) or self._offered:
            return ""
        largest = float(self._weight.abs().max())
        return f"{self._weight.dtype} does not hold an approximation of a matrix with entries up to {largest:.0e}"

    @property
    def sizes(self) -> Sequence[int]:
        return [self.inner.sizes[i] for i in self._offered]

    @property
    def costs(self) -> Sequence[Cost]:
        costs = self.inner.costs
        return [costs[i] for i in self._offered]

    @property
    def errors(self) -> Tensor:
        offered = self._offered
        return times_power(self.inner.errors[offered], self._by)

    @property
    def zero_error(self) -> float:
        return self._original(self.inner.zero_error)

    @property
    def spectrum(self) -> Tensor | None:
        """Squared singular values in the metric, where the method knows them."""
        found: Tensor | None = getattr(self.inner, "spectrum", None)
        return None if found is None else times_power(found, self._by)

    @property
    def members(self) -> Sequence[tuple[str, int]] | None:
        """The method of each candidate and its size there, where there are several."""
        found: Sequence[tuple[str, int]] | None = getattr(self.inner, "members", None)
        return None if found is None else [found[i] for i in self._offered]

    def build(self, size: int) -> Fitted:
        """The candidate of a size; Refused where the dtype does not hold it."""
        found = self._stored(size)
        if found is None:
            dtype, largest = self._weight.dtype, float(self._weight.abs().max())
            raise Refused(
                f"{dtype} does not hold this approximation of a matrix with entries up to {largest:.0e}: scale the "
                "matrix, or use a dtype of more range"
            )
        return found


class RescaledLazy(Rescaled):
    """Of a family whose candidates are measured one by one."""

    inner: Lazy

    @property
    def known(self) -> dict[int, float]:
        """Squared error of the sizes that were measured."""
        return {size: self._original(error) for size, error in self.inner.known.items()}

    @known.setter
    def known(self, errors: dict[int, float]) -> None:
        found = torch.tensor(list(errors.values()), dtype=torch.float64)
        scaled: list[float] = times_power(found, -self._by).tolist()
        self.inner.known = dict(zip(errors, scaled, strict=True))

    @property
    def expected(self) -> Callable[[int], float] | None:
        """What the error of a size is about proportional to, where that is known."""
        found: Callable[[int], float] | None = getattr(self.inner, "expected", None)
        return found

    def candidate(self, size: int) -> StructuredMatrix:
        """The structure of a size."""
        return self.build(size).structure

    def measure(self, size: int) -> None:
        """Enters the error of a size in `known`."""
        if not self._at_an_end:
            self.inner.measure(size)
        elif not self._offered:  # which measures all that are
            raise Refused(self.unheld)

    def estimates(self) -> Tensor:
        """As `errors`, but of the candidates that were not measured what the others make likely."""
        offered = self._offered
        return times_power(self.inner.estimates()[offered], self._by)

    def _leave_out(self, sizes: Sequence[int]) -> None:
        # No better than zeros, so that none is built in the place of another.
        self.inner.known |= dict.fromkeys(sizes, self.inner.zero_error)

    def error_of(self, dense: Tensor) -> float:
        """Squared error of a matrix (out, in) in the place of W."""
        return self._original(self.inner.error_of(times_power(dense.double(), -self._exponent)))

    def rounding_error(self, structure: StructuredMatrix) -> float:
        """What a structure that rounds its inputs adds to the squared error of its matrix."""
        own = copy.deepcopy(structure)
        multiply(own, -self._exponent)
        return self._original(self.inner.rounding_error(own))

    def _of_inputs(self, fitted: Fitted) -> float:
        return self.inner.rounding_error(fitted.structure)

    def _error(self, size: int, error: float, before: Tensor, after: Tensor, of_inputs: float) -> float | None:
        """What is left of a candidate is measured, and entered in what is known."""
        found, zero = self.inner.error_of(after) + of_inputs, self.inner.zero_error
        if not found <= zero * (1 - ZEROS):
            return None
        if "_offered" not in self.__dict__:  # later a better one may be built in its place, whose error this is
            self.inner.known |= {size: found}
        return found
