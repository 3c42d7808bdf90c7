"""FireQ: scales and inputs of 8-bit floats."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart.compressors.fireq import float8_scales
from eckart.structures import Chain, Diagonal, Float8Input, Quantized
from support import hard
from support.layers import layer


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 1e4])
def test_scales_are_floats_of_8_bits_times_one_power_of_two(size: float) -> None:
    weight = size * hard.normal(8, 300, seed=1) * torch.logspace(0, -2, 8, dtype=torch.float64)[:, None]
    codes = float8_scales(weight, 4, torch.float64)
    scales = codes.scales.detach()
    power = 2.0 ** torch.frexp(scales.max() / 448).exponent
    inside = scales / power
    assert float(inside.max()) <= 448
    torch.testing.assert_close(inside.to(torch.float8_e4m3fn).double(), inside, rtol=0, atol=0)
    exact = Quantized.quantize(weight, 4, 128, symmetric=True)
    assert ((scales - exact.scales).abs() <= 0.07 * exact.scales).all()
    assert (codes.to_dense() - weight).norm() < 1.1 * (exact.to_dense() - weight).norm()


def test_small_rows_do_not_vanish() -> None:
    weight = torch.cat([hard.normal(1, 128, seed=1), 1e-3 * hard.normal(1, 128, seed=2)])
    assert float8_scales(1e-6 * weight, 4, torch.float64).to_dense()[1].any()


def test_what_is_built() -> None:
    weight, x, statistics = layer(12, 20)
    structure = eckart.fit(weight, "fireq", bits=4, statistics=statistics)
    assert isinstance(structure, Chain)
    rounded, inverse = structure.operands()
    assert isinstance(rounded, Float8Input)
    assert isinstance(inverse, Diagonal)
    s = x.abs().amax(0).sqrt() / weight.abs().amax(0).sqrt()
    ratio = inverse.weight.detach() * s
    torch.testing.assert_close(ratio, ratio[0].expand(20), rtol=1e-12, atol=0)
    y = x @ weight.T
    assert (structure(x) - y).norm() < 0.15 * y.norm()
