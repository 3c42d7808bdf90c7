"""What keeps a statistic while batches pass by, and which keeps which."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from eckart.statistics.maxima import AbsoluteMaximum
from eckart.statistics.needs import Need
from eckart.statistics.sample import SAMPLED_PAIRS, Sample
from eckart.statistics.second_moment import SecondMoment
from eckart.statistics.sums import AbsoluteSum, RowSum, Sum


class Accumulator(Protocol):
    """Takes what a statistic is made of, some rows (tokens, n) in float32 at a time, and gives its mean."""

    def add(self, rows: Tensor) -> None: ...

    def settle(self) -> None:
        """Moves what was added up in float32 to float64."""

    def join(self, other: Any) -> None:
        """Adds what another of the same class, settled, was given of the rows behind these."""

    def result(self, count: int) -> Tensor:
        """The statistic for that many tokens or samples; nothing can be added afterwards."""


OF_INPUTS: dict[Need, Callable[[], Accumulator]] = {
    Need.INPUT_SAMPLE: Sample,
    Need.INPUT_SECOND_MOMENT: SecondMoment,
    Need.INPUT_MEAN: RowSum,
    Need.INPUT_ABS_MEAN: AbsoluteSum,
    Need.INPUT_ABS_MAX: AbsoluteMaximum,
}
"""What is fed with the inputs of a matrix."""

OF_FISHER: dict[Need, Callable[[], Sum]] = {Need.FISHER_ROWS: Sum, Need.FISHER_COLUMNS: Sum}
"""What is fed with the sums of the squared gradient of a sample over its rows and over its columns."""

OF_PAIRS: dict[Need, Callable[[], Accumulator]] = {Need.GRADIENT_PAIRS: partial(Sample, SAMPLED_PAIRS)}
"""What is fed with the inputs of a matrix and the gradients of its outputs, side by side."""

GRADIENT_NEEDS = frozenset({Need.GRADIENT_SECOND_MOMENT, *OF_FISHER, *OF_PAIRS})
"""What takes a backward pass."""
