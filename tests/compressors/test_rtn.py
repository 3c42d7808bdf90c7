"""Rounding to the nearest point of a grid."""

from __future__ import annotations

import pytest
import torch

from eckart.compressors.rtn import round_to_nearest
from eckart.statistics.needs import Statistics
from eckart.structures.quantized import Quantized
from support.quantizing import random


def test_weights_on_a_grid_of_four_bits_keep_it_at_five() -> None:
    weight = Quantized.quantize(random(8, 128), 4, 64).to_dense().detach()
    family = round_to_nearest(weight, Statistics())
    assert float(family.errors[2]) == pytest.approx(float(family.errors[3]), abs=1e-9)
    built = family.build(5).structure
    assert isinstance(built, Quantized)
    assert built.bits == 4
    with pytest.raises(ValueError, match="size 7"):
        family.build(7)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rtn_is_the_paper_s_formula_entry_by_entry(bits: int) -> None:
    weight, top = random(4, 130, dtype=torch.float64), 2**bits - 1
    expected = torch.empty_like(weight)
    for i in range(4):
        for first in range(0, 130, 64):
            part = weight[i, first : first + 64].tolist()
            low, high = min(0.0, *part), max(0.0, *part)
            s = (high - low) / top
            z = round(-low / s)
            expected[i, first : first + 64] = torch.tensor(
                [s * (min(max(round(w / s) + z, 0), top) - z) for w in part], dtype=torch.float64
            )
    family = round_to_nearest(weight, Statistics())
    dense = family.build(bits).structure.to_dense().detach()
    torch.testing.assert_close(dense, expected, rtol=1e-12, atol=1e-12)
    error = float(family.errors[list(family.sizes).index(bits)])
    assert error == pytest.approx(float((weight - expected).square().sum()))
