"""FlexQ: groups of 128, and 8 bits for the inputs that need them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart import METHODS
from eckart.structures import Quantized, RoundedInput
from support import hard
from support.layers import inputs, layer, statistics_of


def fitted(x: Tensor, weight: Tensor) -> RoundedInput:
    structure = eckart.fit(weight, "flexq", bits=6, statistics=statistics_of(x, inputs(len(weight), seed=35)))
    assert isinstance(structure, RoundedInput)
    assert isinstance(structure.matrix, Quantized)
    return structure


def test_even_inputs_get_6_bits_and_uneven_ones_8() -> None:
    weight = hard.normal(16, 300, seed=1)
    even = hard.normal(96, 300, seed=2)
    uneven = even.clone()
    uneven[:, 5] = 300 * even[:, 5].sign()
    weight[:, 5] *= 1e-3
    assert fitted(even, weight).bits == 6
    assert fitted(uneven, weight).bits == 8


@pytest.mark.parametrize("columns", [300, 128, 20])
def test_the_product_is_that_of_integers_by_group(columns: int) -> None:
    weight, x = hard.normal(6, columns, seed=1), hard.normal(96, columns, seed=2)
    structure = fitted(x, weight)
    y = torch.zeros(96, 6, dtype=torch.float64)
    for start in range(0, columns, 128):
        for i, row in enumerate(weight[:, start : start + 128]):
            scale = max(float(row.max()) / 31, -float(row.min()) / 32)
            codes = (row / scale).round().clamp(-32, 31)
            for t, token in enumerate(x[:, start : start + 128]):
                step = float(token.abs().max()) / (2 ** (structure.bits - 1) - 1)
                y[t, i] += scale * step * float((token / step).round() @ codes)
    torch.testing.assert_close(structure(x).detach(), y, rtol=1e-9, atol=1e-9)


def test_there_is_one_size() -> None:
    weight, _, statistics = layer(12, 20)
    assert list(METHODS["flexq"].entry(weight, statistics).sizes) == [6]
