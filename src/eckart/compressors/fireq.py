"""FireQ's matrices: weights of 4 bits whose scales are floats of 8 bits, and inputs of floats of 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import by_input, centred, cost_of_codes, divided, inputs_of, migration, moment_of
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.ops.input_rounding import FLOAT8, LARGEST
from eckart.ops.packing import encode, grid, grouped, pack
from eckart.ops.powers_of_two import times_power
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.quantized import Quantized, finite_matrix
from eckart.structures.rounded_input import Float8Input

BITS = 4
GROUP = 128


@compressor(
    "fireq",
    paper="Baek et al. 2025, arXiv 2505.20839",
    expression="Chain(Float8Input(Quantized), Diagonal)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_ABS_MAX, Need.INPUT_SAMPLE),
    size="bits",
)
def fireq(weight: Tensor, statistics: Statistics) -> Family:
    """Symmetric weights of 4 bits with a scale in E4M3 for 128 inputs, inputs in E4M3 with a scale a token.

    `W x ~ Q(W diag(s)) q(diag(1 / s) x)` with the s of SmoothQuant, which the paper's scaling of channels is akin to.
    Scales are numbers of 8 bits times one power of two for the whole matrix, by which the largest is brought close to
    448, so that small ones do not vanish (its scaling of tensors). Left out of the paper: its keys, values and queries,
    which are no matrices of the model; that its table of the 16 multiples of a scale is rounded to E4M3 too; and the
    byte that a scale could take, which here takes what a weight takes: the values are the paper's, the bytes are not.
    The one size is 4 bits.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C, `input_abs_max` and `input_sample` are read; errors are
            `||(W - What) C^1/2||_F^2` and what the rounding of the sample adds to it.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight.
    """
    weight = finite_matrix(weight)
    moment, sample = moment_of(statistics, weight), inputs_of(statistics, weight)
    scales = centred(migration(by_input(statistics.get(Need.INPUT_ABS_MAX), weight), weight))

    def cost(bits: int) -> Cost:
        return cost_of_codes(weight, bits, GROUP, symmetric=True)

    def fit(bits: int) -> Chain:
        inverse, exact_scales = divided(scales, weight.dtype)
        exact = torch.promote_types(weight.dtype, torch.float32)
        codes = float8_scales(weight.to(exact) * exact_scales.to(exact), bits, weight.dtype)
        return Chain(Float8Input(codes), inverse)

    return OneByOne(weight, paying(weight, (BITS,), cost), cost, fit, Metric(right=moment), rounding, sample)


def float8_scales(weight: Tensor, bits: int, dtype: torch.dtype, group: int = GROUP) -> Quantized:
    """Rounds W (out, in) to a symmetric grid whose scales are numbers of E4M3 times one power of two."""
    columns = weight.shape[1]
    group = min(group, columns)
    values = grouped(weight, group)
    wide, _ = grid(values, bits, weight.dtype, symmetric=True)
    largest = float(wide.max())
    power = int(torch.frexp(torch.tensor(largest / LARGEST)).exponent) if largest else 0
    scales = times_power(times_power(wide, -power).clamp_max(LARGEST).to(FLOAT8).to(wide.dtype), power).to(dtype)
    codes = encode(values, scales[..., None].to(weight.dtype), None, bits).flatten(-2)[:, :columns].contiguous()
    return Quantized(pack(codes, bits), scales, bits=bits, group=group, columns=columns)
