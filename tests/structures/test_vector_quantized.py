"""VectorQuantized: codes for short vectors of rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.ops.packing import pack, row_bytes
from eckart.structures import VectorQuantized
from eckart.structures.multiplied import multiply
from support import hard

byte = torch.uint8


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 19),
    st.integers(1, 20),
    st.integers(2, 8),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 5, 8, 99]),
)
def test_vector_quantized_against_a_loop(out: int, columns: int, bits: int, length: int, group: int) -> None:
    draw = torch.Generator().manual_seed(out + 100 * columns)
    vectors, groups = -(-out // length), -(-columns // group)
    codes = torch.randint(1 << bits, (vectors, columns), generator=draw, dtype=byte)
    scales, book = hard.normal(out, groups), hard.normal(1 << bits, length, seed=1)
    matrix = VectorQuantized.from_codes(codes, scales, book, group=group)
    matrix.check_values()
    dense = torch.tensor(
        [
            [float(scales[i, j // group] * book[int(codes[i // length, j]), i % length]) for j in range(columns)]
            for i in range(out)
        ],
        dtype=torch.float64,
    )
    assert torch.equal(matrix.to_dense(), dense)
    assert torch.equal(matrix.unpacked(), codes)
    index = torch.randint(-out, out, (2, 5), generator=draw)
    assert torch.equal(matrix.rows(index), dense[index])
    cost = matrix.cost()
    size = vectors * row_bytes(columns, bits) + 8 * (out * groups + length * 2**bits)
    assert (cost.parameters, cost.bytes, cost.macs) == (out * columns, size, out * columns)
    assert VectorQuantized.empty((out, columns), bits, length, group, scales.dtype).cost() == cost


def test_vector_quantized_times_a_power_of_two() -> None:
    matrix = VectorQuantized.from_codes(
        torch.ones(2, 5, dtype=byte), hard.normal(7, 1), hard.normal(16, 4, seed=1), group=5
    )
    before = matrix.to_dense().detach()
    multiply(matrix, 3)
    assert torch.equal(matrix.to_dense(), 8 * before)


codes = torch.ones(2, 40, dtype=byte)

WRONG: dict[str, Callable[[], VectorQuantized]] = {
    r"codebook of 4, 8, ... or 256 vectors of 1, 2, 4 entries, got \(16, 3\)": lambda: VectorQuantized.from_codes(
        codes, torch.ones(6, 1), torch.ones(16, 3), group=40
    ),
    r"vectors of 1, 2, 4 entries, got \(12, 2\)": lambda: VectorQuantized.from_codes(
        codes, torch.ones(4, 1), torch.ones(12, 2), group=40
    ),
    r"vectors of 1, 2, 4 entries, got \(512, 2\)": lambda: VectorQuantized(
        codes, torch.ones(1, 4), torch.ones(512, 2), group=40, columns=40
    ),
    "codebook must be a floating-point tensor of 2 dimensions": lambda: VectorQuantized(
        codes, torch.ones(1, 4), torch.ones(256), group=40, columns=40
    ),
    r"needs scales of shape \(3, 8\), got \(1, 8\)": lambda: VectorQuantized(
        codes, torch.ones(1, 8), torch.ones(256, 4), group=16, columns=40
    ),
    r"needs uint8 codes of shape \(3, 40\), got torch.uint8 of shape \(2, 40\)": lambda: VectorQuantized(
        codes, torch.ones(1, 9), torch.ones(256, 4), group=40, columns=40
    ),
    r"needs uint8 codes of shape \(2, 30\), got torch.uint8 of shape \(2, 40\)": lambda: VectorQuantized(
        codes, torch.ones(1, 4), torch.ones(64, 2), group=40, columns=40
    ),
    "needs uint8 codes of shape .*, got torch.int64": lambda: VectorQuantized(
        codes.long(), torch.ones(1, 8), torch.ones(256, 4), group=40, columns=40
    ),
    "each below 16, got torch.uint8": lambda: VectorQuantized.from_codes(
        16 * codes, torch.ones(4, 1), torch.ones(16, 2), group=40
    ),
    "group must be an integer of at least 1, got 0": lambda: VectorQuantized.from_codes(
        codes, torch.ones(8, 1), torch.ones(256, 4), group=0
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_vector_quantized_refuses(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_vector_quantized_finds_damage() -> None:
    for scale, entry, name in ((torch.nan, 1.0, "scales"), (1.0, torch.inf, "codebook")):
        damaged = VectorQuantized(
            pack(codes, 4), torch.full((1, 4), scale), torch.full((16, 2), entry), group=40, columns=40
        )
        with pytest.raises(ValueError, match=f"{name} has NaN or Inf"):
            damaged.check_values()
