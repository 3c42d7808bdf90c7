"""BinaryCoded: planes of signs with scales."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.ops.binary_planes import rows_of_tiles, tiled, untiled
from eckart.structures import BinaryCoded, Quantized
from eckart.structures.multiplied import multiply
from support import hard


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 35), st.integers(1, 40), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_binary_coded_against_a_loop(out: int, columns: int, planes: int, shifted: bool, seed: int) -> None:
    group = 16 if columns > 16 else columns
    groups = -(-columns // group)
    signs = hard.normal(planes * out, columns, seed=seed).view(planes, out, columns) > 0
    scales = hard.normal(out, groups * planes, seed=seed + 1).view(out, groups, planes)
    offsets = hard.normal(out, groups, seed=seed + 2) if shifted else None
    matrix = BinaryCoded.from_planes(signs, scales, offsets, group=group)
    matrix.check_values()
    dense = torch.empty(out, columns, dtype=scales.dtype)
    width = -(-columns // 8)
    packed: list[list[int]] = []
    for first in range(0, out, 16):
        tile = range(first, min(out, first + 16))
        packed += [
            [sum(int(signs[p, i, j]) << j % 8 for j in range(8 * b, min(columns, 8 * b + 8))) for i in tile]
            for b in range(width)
            for p in range(planes)
        ]
    for i in range(out):
        for j in range(columns):
            dense[i, j] = 0.0 if offsets is None else offsets[i, j // group]
            for p in range(planes):
                dense[i, j] += scales[i, j // group, p] * (1 if signs[p, i, j] else -1)
    assert matrix.codes.flatten().tolist() == [byte for run in packed for byte in run]
    torch.testing.assert_close(matrix.to_dense().detach(), dense, rtol=1e-14, atol=1e-14)
    assert torch.equal(matrix.signs().bool(), signs)
    index = torch.randint(-out, out, (2, 5), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(matrix.rows(index), matrix.to_dense()[index])
    numbers = out * groups * (planes + shifted)
    cost = matrix.cost()
    assert (cost.parameters, cost.bytes, cost.macs) == (
        out * columns,
        out * planes * width + 8 * numbers,
        out * columns,
    )
    assert BinaryCoded.empty((out, columns), planes, group, scales.dtype, offsets=shifted).cost() == cost


@pytest.mark.parametrize("out", [1, 5, 16, 17, 48])
@pytest.mark.parametrize("width", [1, 7, 16])
def test_tiles_are_runs_of_rows_turned_about(out: int, width: int) -> None:
    rows = torch.arange(out * width).view(out, width)
    wanted = torch.cat([rows[first : first + 16].T.flatten() for first in range(0, out, 16)])
    found = tiled(rows)
    assert torch.equal(found.flatten(), wanted)
    assert found.is_contiguous()
    assert torch.equal(untiled(found), rows)
    index = torch.tensor([out - 1, 0, -1, out // 2])
    assert torch.equal(rows_of_tiles(found, index), rows[index])


def test_points_of_a_grid_are_sums_of_planes() -> None:
    grid = Quantized.quantize(hard.normal(20, 48).float(), 3, 16)
    assert grid.zeros is not None
    codes = grid.unpacked()
    signs = torch.stack([(codes >> p & 1).bool() for p in range(3)])
    scales = grid.scales.detach()[..., None] * torch.tensor([0.5, 1, 2])
    offsets = grid.scales.detach() * (3.5 - grid.zeros.float())
    matrix = BinaryCoded.from_planes(signs, scales, offsets, group=16)
    torch.testing.assert_close(matrix.to_dense(), grid.to_dense())


def test_binary_coded_times_a_power_of_two() -> None:
    matrix = BinaryCoded.from_planes(torch.rand(2, 3, 5) > 0.5, torch.randn(3, 1, 2), torch.randn(3, 1), group=8)
    before = matrix.to_dense().detach()
    multiply(matrix, 3)
    assert torch.equal(matrix.to_dense(), 8 * before)


byte = torch.uint8
signs = torch.ones(2, 3, 40, dtype=torch.bool)

WRONG: dict[str, Callable[[], BinaryCoded]] = {
    "group must be a multiple of 16, or all 40 columns, got 12": lambda: BinaryCoded.from_planes(
        signs, torch.ones(3, 4, 2), group=12
    ),
    r"needs scales of shape \(3, 3, 2\), got \(3, 3, 1\)": lambda: BinaryCoded.from_planes(
        signs, torch.ones(3, 3, 1), group=16
    ),
    r"signs must be torch.bool of shape \(planes, out, in\), got torch.float32": lambda: BinaryCoded.from_planes(
        signs.float(), torch.ones(3, 3, 2), group=16
    ),
    r"needs offsets of shape \(3, 3\), got \(3, 1\)": lambda: BinaryCoded.from_planes(
        signs, torch.ones(3, 3, 2), torch.ones(3, 1), group=16
    ),
    "needs uint8 codes of shape": lambda: BinaryCoded(torch.ones(3, 10), torch.ones(3, 6), group=16, columns=40),
    "5 bytes a row for each of 1 to 8 planes of 40 columns": lambda: BinaryCoded(
        torch.ones(3, 9, dtype=byte), torch.ones(3, 6), group=16, columns=40
    ),
    r"codes of shape \(3, 45\)": lambda: BinaryCoded(
        torch.ones(3, 45, dtype=byte), torch.ones(3, 27), group=16, columns=40
    ),
    r"needs scales of shape \(3, 6\), got \(3, 5\)": lambda: BinaryCoded(
        torch.ones(3, 10, dtype=byte), torch.ones(3, 5), group=16, columns=40
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_binary_coded_refuses(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_binary_coded_finds_damage() -> None:
    matrix = BinaryCoded.from_planes(torch.ones(1, 3, 9, dtype=torch.bool), torch.ones(3, 1, 1), group=9)
    matrix.codes[2, 1] |= 2
    with pytest.raises(ValueError, match="columns beyond 9"):
        matrix.check_values()
    for scales, offsets, name in ((torch.nan, 1.0, "scales"), (1.0, torch.inf, "offsets")):
        damaged = BinaryCoded(
            torch.zeros(3, 2, dtype=byte), torch.full((3, 1), scales), torch.full((3, 1), offsets), group=9, columns=9
        )
        with pytest.raises(ValueError, match=f"{name} have NaN or Inf"):
            damaged.check_values()
