"""Packed codes, grids and codebooks."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.ops.packing import encode, grid, normal_float, pack, row_bytes, searched_grid, unpack
from support.quantizing import random

ALL_BITS = range(2, 9)

few = settings(deadline=None, max_examples=25)


@few
@given(bits=st.sampled_from(ALL_BITS), rows=st.integers(1, 4), columns=st.integers(1, 70), seed=st.integers(0, 99))
def test_packing_round_trip(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8, generator=generator)
    packed = pack(codes, bits)
    assert packed.shape == (rows, row_bytes(columns, bits))
    assert torch.equal(unpack(packed, bits, columns), codes)


@few
@given(bits=st.sampled_from(ALL_BITS), columns=st.integers(1, 300))
def test_packed_bytes_are_those_of_theory(bits: int, columns: int) -> None:
    theory = ceil(columns * bits / 8)
    padding = row_bytes(columns, bits) - theory
    assert 0 <= padding < max(bits, 2)
    if bits in (2, 4, 8) or columns % 8 == 0:
        assert padding == 0


def test_normal_float_is_the_published_code() -> None:
    levels = normal_float(4)
    assert levels[0] == -1
    assert levels[7] == 0
    assert levels[15] == 1
    # Dettmers 2023, appendix E.
    published = torch.tensor([-0.6961928, -0.52507305, -0.0910500, 0.0795803, 0.7229568], dtype=torch.float64)
    torch.testing.assert_close(levels[[1, 2, 6, 8, 14]], published, atol=1e-6, rtol=0)
    for bits in ALL_BITS:
        assert (normal_float(bits).diff() > 0).all()
        assert len(normal_float(bits)) == 1 << bits


def test_searched_grid_is_never_worse() -> None:
    values, weights = random(20, 64).pow(3), random(64).square()
    for bits in (2, 3, 4, 8):

        def error(chosen: tuple[Tensor, Tensor | None], bits: int = bits, power: float = 2.4) -> Tensor:
            scales, zeros = chosen[0][..., None], chosen[1][..., None].float()
            codes = (values / scales + zeros).round().clamp(0, 2**bits - 1)
            return (((codes - zeros) * scales - values).abs().pow(power) * weights).sum(-1)

        plain = grid(values, bits, values.dtype)
        searched = searched_grid(values, bits, values.dtype, importance=weights)
        assert (error(searched) <= error(plain) * (1 + 1e-5)).all()
        assert error(searched).sum() <= error(searched_grid(values, bits, values.dtype)).sum()
        assert bits > 3 or error(searched, power=2.0).sum() < 0.95 * error(plain, power=2.0).sum()


@pytest.mark.parametrize("levels", [2, 3, 4, 7, 16, 100, 256])
def test_codes_of_a_codebook_are_those_of_bucketize(levels: int) -> None:
    book = random(levels).sort().values
    middles = (book[1:] + book[:-1]) / 2
    values = torch.cat([2 * random(500, seed=1), middles, book, torch.tensor([-torch.inf, torch.inf])])
    codes = encode(values, torch.ones(()), None, 8, book)
    assert torch.equal(codes, torch.bucketize(values, middles).to(torch.uint8))
