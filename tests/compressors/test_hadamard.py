"""A rotation in front of a matrix: exact but for the rounding, and what it is good for."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS
from eckart.compressors.hadamard import GROUP
from eckart.structures import Chain, Quantized
from support import hard
from support.layers import layer


@pytest.mark.parametrize("columns", [1, 9, 12, 16, 40])
def test_it_is_rounding_to_nearest_in_rotated_coordinates(columns: int) -> None:
    weight = hard.normal(10, columns, seed=1)
    family = METHODS["hadamard"].entry(weight, layer(12, 20)[2])
    if not family.sizes:
        assert columns in (1, 9)  # a matrix of 9 x 9 beside one of 10 x 9 does not pay
        return
    structure = family.build(4).structure if 4 in family.sizes else family.build(family.sizes[0]).structure
    assert isinstance(structure, Chain)
    codes, rotation = structure.operands()
    assert isinstance(codes, Quantized)
    turning = rotation.to_dense()
    torch.testing.assert_close(turning @ turning.T, torch.eye(columns, dtype=torch.float64), rtol=0, atol=1e-12)
    expected = Quantized.quantize(weight @ turning.T, codes.bits, 64).to_dense() @ turning
    torch.testing.assert_close(structure.to_dense(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_short_dtypes_lose_nothing_by_a_rotation_that_is_not_quite_orthogonal(dtype: torch.dtype) -> None:
    weight = hard.normal(48, 576, seed=2).to(dtype)
    errors = []
    for method in ("hadamard", "rtn"):
        rounded = eckart.fit(weight, method, bits=8).to(torch.float64).to_dense()
        errors.append(float((rounded - weight.double()).norm() / weight.double().norm()))
    assert errors[0] < 1.2 * errors[1]


def test_it_pays_where_a_few_entries_stick_out() -> None:
    weight = hard.normal(32, 128, seed=3)
    weight[:, ::37] *= 30
    plain, turned = (eckart.fit(weight, name, bits=4).to_dense() - weight for name in ("rtn", "hadamard"))
    assert turned[:, 1:37].norm() < 0.7 * plain[:, 1:37].norm()


def test_costs_count_signs_and_the_small_matrix() -> None:
    structure = eckart.fit(hard.normal(64, 576, seed=4).half(), "hadamard", bits=4)
    assert structure.cost().bytes == 64 * 288 + 64 * (9 * 2 + 5) + 2 * (576 + 81)
    assert GROUP == 64
