"""Weights as odd integers with one scale a group, inputs as odd integers with one a token."""

from __future__ import annotations

import math

import pytest
import torch

import eckart
from eckart.compressors.bitplane_int import bipolar
from eckart.structures import BinaryCoded, BipolarInput
from support import hard
from support.layers import inputs, statistics_of


def by_hand(w: list[float], bits: int) -> list[float]:
    """One group: odd integers and the scale in turns."""
    top = 2**bits - 1
    s, k = max(map(abs, w)) / top, [0] * len(w)
    for _ in range(15):
        k = [min(max(2 * math.floor(v / s / 2) + 1, -top), top) for v in w]
        s = math.fsum(v * i for v, i in zip(w, k, strict=True)) / sum(i * i for i in k)
    return [s * min(max(2 * math.floor(v / s / 2) + 1, -top), top) for v in w]


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_weights_are_odd_integers_times_a_scale(bits: int) -> None:
    weight = hard.normal(6, 100, seed=bits)
    found = bipolar(weight, bits, 32).to_dense().detach()
    for row, what in zip(weight, found, strict=True):
        for start in range(0, 100, 32):
            part = slice(start, start + 32)
            wanted = torch.tensor(by_hand(row[part].tolist(), bits), dtype=torch.float64)
            torch.testing.assert_close(what[part], wanted, rtol=1e-12, atol=0)


def test_one_bit_is_the_sign_and_the_mean_magnitude() -> None:
    weight = hard.normal(4, 64, seed=7)
    wanted = weight.sign() * weight.abs().mean(1, keepdim=True)
    torch.testing.assert_close(bipolar(weight, 1, 64).to_dense().detach(), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("q", "worst"), [(2, 0.6), (4, 0.2), (8, 0.11)])
def test_inputs_are_rounded_too(q: int, worst: float) -> None:
    weight, x = hard.normal(16, 256, seed=1), hard.normal(96, 256, seed=2)
    statistics = statistics_of(x, inputs(16, seed=3))
    structure = eckart.fit(weight, "bitplane-int", bits=4, inputs=q, statistics=statistics)
    assert isinstance(structure, BipolarInput)
    assert isinstance(structure.matrix, BinaryCoded)
    assert structure.bits == q
    y = x @ weight.T
    assert float((structure(x).detach() - y).norm() / y.norm()) < worst


def test_bits_of_inputs_are_checked() -> None:
    weight, x = hard.normal(16, 64, seed=1), hard.normal(96, 64, seed=2)
    with pytest.raises(eckart.Refused, match="bits must be 1 to 8, got 9"):
        eckart.fit(weight, "bitplane-int", bits=4, inputs=9, statistics=statistics_of(x, inputs(16, seed=3)))
