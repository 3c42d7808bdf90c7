"""Every fit at an ordinary scale: what comes in is scaled by powers of two, and so is what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from math import frexp, isfinite

import torch
from torch import Tensor

from eckart.compressors._candidates import Family, lazy
from eckart.compressors._rescaled import Rescaled, RescaledLazy, orderly
from eckart.compressors._shared_inputs import made_of
from eckart.errors import Refused
from eckart.ops.powers_of_two import times_power
from eckart.statistics.needs import Need, Statistics
from eckart.structures.quantized import finite_matrix

Fit = Callable[[Tensor, Statistics], Family]

ORDINARY = range(-40, 41)
"""Exponents of the largest entry, of W or of an input, at which products of several of them stay well in float32."""
HEADROOM = 8
"""An approximation may have entries larger than any of W; by so many powers of two there is room for them."""
TARGET = 6
"""The exponent of the largest entry, about, that others are brought to: even float16 has room on both sides of it."""

INPUTS = (
    Need.INPUT_SECOND_MOMENT,
    Need.INPUT_MEAN,
    Need.INPUT_ABS_MEAN,
    Need.INPUT_ABS_MAX,
    Need.INPUT_SAMPLE,
)
SQUARES = {Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT}
"""What grows with the square of an input or a gradient, and not with it."""


@dataclass(frozen=True)
class Exponents:
    """Powers of two: what is fitted is W / 2^weight, on statistics that are divided likewise.

    Attributes:
        weight: of W; even, so that two factors of W share it evenly.
        inputs: of an input.
        gradients: of a gradient of the outputs.
        fisher: of the sums of squared gradients of W, over the rows and over the columns.
    """

    weight: int = 0
    inputs: int = 0
    gradients: int = 0
    fisher: tuple[int, int] = (0, 0)

    def of_error(self, needs: Sequence[Need]) -> int:
        """That of a squared error in the metric that a method makes of these statistics."""
        by_inputs = 2 * (Need.INPUT_SECOND_MOMENT in needs) or int(Need.INPUT_ABS_MEAN in needs)
        by_gradients = 2 * (Need.GRADIENT_SECOND_MOMENT in needs)
        by_fisher = self.fisher[1] * (Need.FISHER_COLUMNS in needs)
        return 2 * self.weight + by_inputs * self.inputs + by_gradients * self.gradients + by_fisher


@dataclass(eq=False)
class AtScale:
    """A compressor for matrices and statistics of any size, from one that is for ordinary ones.

    Entries near the ends of a dtype make what is computed on the way to an approximation overflow, or vanish. Scaling
    by powers of two changes no digit and every method is equivariant under it, so that this is done here, once for all:
    W and its statistics are scaled, fitted, and what was fitted is scaled back in its float leaves. What is of ordinary
    size is passed on as it is. Candidates that are larger than the dense matrix, or than one that errs less, which
    packing can make of small matrices, are left out here too.

    Attributes:
        fit: `(weight, statistics) -> Family`.
        needs: the statistics it reads.

    Raises:
        Refused: the weight is no finite matrix, or the squared error of its approximations overflows float64; and as
            `fit`.
    """

    fit: Fit
    needs: tuple[Need, ...]

    def __post_init__(self) -> None:
        update_wrapper(self, self.fit)  # name, module and text of a card are those of the paper

    def __call__(self, weight: Tensor, statistics: Statistics) -> Family:
        w = finite_matrix(weight)
        exponents = exponents_of(w, statistics, self.needs)
        if exponents == Exponents():
            family = self.fit(weight, statistics)
            if orderly(family, w):
                return family
        else:
            family = self.fit(times_power(w, -exponents.weight), scaled_statistics(statistics, exponents))
        kind = RescaledLazy if lazy(family) else Rescaled
        family = kind(family, w, exponents.weight, exponents.inputs, exponents.of_error(self.needs))
        if not isfinite(family.zero_error):
            raise Refused(
                f"the squared error overflows float64: entries of the weight are up to {float(w.abs().max()):.0e}, and "
                "its statistics may be large too; scale them down"
            )
        return family


def exponents_of(weight: Tensor, statistics: Statistics, needs: Sequence[Need]) -> Exponents:
    """What is to be taken out of a finite W (out, in) and the statistics that are read; all zero for ordinary ones."""
    limits = torch.finfo(weight.dtype)
    largest = frexp(limits.max)[1] - HEADROOM
    least = frexp(limits.smallest_normal)[1]
    of_weight = _exponent(weight)
    ordinary = max(ORDINARY.start, least) <= of_weight <= min(ORDINARY.stop, largest)
    known = {need: getattr(statistics, need.value) for need in needs}

    def common(*wanted: Need) -> int:
        tensors = {need: tensor for need in wanted if isinstance(tensor := known.get(need), Tensor)}
        each = {need: made_of(tensor, "exponent", partial(_exponent, tensor)) for need, tensor in tensors.items()}
        largest = max((exponent // (1 + (need in SQUARES)) for need, exponent in each.items()), default=0)
        return 0 if largest in ORDINARY else largest

    return Exponents(
        weight=0 if ordinary else (of_weight - TARGET) // 2 * 2,
        inputs=common(*INPUTS),
        gradients=common(Need.GRADIENT_SECOND_MOMENT),
        fisher=(common(Need.FISHER_ROWS), common(Need.FISHER_COLUMNS)),
    )


def scaled_statistics(statistics: Statistics, exponents: Exponents) -> Statistics:
    """Statistics of inputs and gradients that are divided by powers of two."""
    each = dict.fromkeys(INPUTS, exponents.inputs) | {Need.GRADIENT_SECOND_MOMENT: exponents.gradients}
    powers = {need: exponent * (1 + (need in SQUARES)) for need, exponent in each.items()}
    powers |= dict(zip((Need.FISHER_ROWS, Need.FISHER_COLUMNS), exponents.fisher, strict=True))
    values = {need.value: getattr(statistics, need.value) for need, exponent in powers.items() if exponent}
    scaled = {name: times_power(v, -powers[Need(name)]) for name, v in values.items() if isinstance(v, Tensor)}
    return replace(statistics, **scaled)  # type: ignore[arg-type]


def _exponent(values: Tensor) -> int:
    """That of the largest magnitude; 0 where all are zero or one is not finite, which whoever reads them refuses."""
    if not values.numel():
        return 0
    largest = max(abs(float(end)) for end in values.detach().aminmax())
    return frexp(largest)[1] if isfinite(largest) else 0
