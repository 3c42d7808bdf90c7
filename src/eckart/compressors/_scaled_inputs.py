"""Inputs divided by a number each, and the columns of the matrix multiplied by it, so that both round well."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.diagonal import Diagonal
from eckart.structures.quantized import Quantized, quantized_cost
from eckart.structures.rounded_input import RoundedInput

INPUT_BITS = 8
MIGRATION = 0.5
"""The power of an input that moves into the weights; SmoothQuant's default."""
SMALLEST = 1e-4
"""Relative to the largest input, what smaller ones count as: an input that is always zero has no size."""


def by_input(values: Tensor, weight: Tensor) -> Tensor:
    """A statistic (in,) that fits a weight (out, in), in float64; else Refused."""
    if tuple(values.shape) != (weight.shape[1],):
        raise Refused(
            f"a statistic of shape {tuple(values.shape)} does not fit a weight of shape {tuple(weight.shape)}"
        )
    return values


def moment_of(statistics: Statistics, weight: Tensor) -> Tensor:
    """E[x x^T] (in, in), or its diagonal where only that was kept, for a weight (out, in), in float64; else Refused."""
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    return by_input(moment, weight) if moment.ndim == 1 else statistics.input_moment(weight)


def inputs_of(statistics: Statistics, weight: Tensor) -> Tensor:
    """The sample of inputs (tokens, in) that fits a weight (out, in), in float64; else Refused."""
    if statistics.lookup:
        raise Refused("the method rounds inputs of a product, and rows that are looked up by index have none")
    sample = statistics.get(Need.INPUT_SAMPLE)
    if sample.ndim != 2 or sample.shape[1] != weight.shape[1] or not len(sample):
        raise Refused(f"inputs of shape {tuple(sample.shape)} do not fit a weight of shape {tuple(weight.shape)}")
    return sample


def relative(sizes: Tensor) -> Tensor:
    """Sizes (n,) over the largest of them, between `SMALLEST` and 1; ones where all are zero."""
    largest = sizes.max()
    return (sizes / largest).clamp_min(SMALLEST) if largest > 0 else torch.ones_like(sizes)


def centred(scales: Tensor) -> Tensor:
    """Scales (n,) times a constant, so that the smallest and the largest are as far from 1 as each other."""
    return scales / (scales.min() * scales.max()).sqrt()


def migration(largest: Tensor, weight: Tensor) -> Tensor:
    """The scales of SmoothQuant, `max|x_j|^a / max|W_j|^(1-a)` with a = 0.5, (in,), float64.

    Args:
        largest: max |x_j| of the inputs, (in,).
        weight: (out, in).
    """
    columns = relative(weight.double().abs().amax(0))
    return relative(largest) ** MIGRATION / columns ** (1 - MIGRATION)


def smoothed(weight: Tensor, scales: Tensor, bits: int, group: int) -> Chain:
    """`Q(W diag(s)) q(diag(1 / s) x)` with symmetric codes and inputs of 8 bits; W (out, in), s (in,) positive."""
    inverse, exact_scales = divided(scales, weight.dtype)
    exact = torch.promote_types(weight.dtype, torch.float32)
    larger = weight.to(exact) * exact_scales.to(exact)
    codes = Quantized.quantize(larger, bits, group, symmetric=True, dtype=weight.dtype)
    return Chain(RoundedInput(codes, bits=INPUT_BITS), inverse)


def divided(scales: Tensor, dtype: torch.dtype) -> tuple[Diagonal, Tensor]:
    """diag(1 / s) in a dtype, and the s that this divides by, (in,), float64."""
    inverse = scales.reciprocal().to(dtype)
    return Diagonal(inverse), inverse.double().reciprocal()


def cost_of_codes(weight: Tensor, bits: int, group: int, *, symmetric: bool) -> Cost:
    """What `Chain(Quantized, Diagonal)` costs."""
    out, columns = weight.shape
    scales = Cost(columns, columns * weight.element_size(), columns)
    return quantized_cost((out, columns), bits, group, weight.dtype, symmetric=symmetric) + scales
