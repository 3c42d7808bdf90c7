"""Planes of signs fitted to groups of weights."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

import eckart
from eckart.compressors import lut_gemm as module
from eckart.compressors.lut_gemm import binary_coding, lut_gemm
from eckart.statistics.needs import Statistics
from eckart.structures import BinaryCoded
from support.quantizing import correlated, random


def by_hand(w: list[float], f: list[float], bits: int, rounds: int) -> Tensor:
    """The fit of one group: greedy signs, then least squares and the nearest sum in turns."""
    rest, signs = list(w), []
    for _ in range(bits):
        b = [1.0 if r >= 0 else -1.0 for r in rest]
        a = sum(fj * abs(r) for fj, r in zip(f, rest, strict=True)) / sum(f)
        rest = [r - a * s for r, s in zip(rest, b, strict=True)]
        signs.append(b)
    B, W, F = (
        torch.tensor(signs, dtype=torch.float64).T,
        torch.tensor(w, dtype=torch.float64),
        torch.tensor(f, dtype=torch.float64),
    )
    combinations = torch.tensor(list(product([-1.0, 1.0], repeat=bits)), dtype=torch.float64)
    for _ in range(rounds):
        scales = torch.linalg.lstsq(B * F.sqrt()[:, None], W * F.sqrt(), driver="gelsd").solution
        B = combinations[((combinations @ scales)[None] - W[:, None]).abs().argmin(1)]
    scales = torch.linalg.lstsq(B * F.sqrt()[:, None], W * F.sqrt(), driver="gelsd").solution
    return combinations[((combinations @ scales)[None] - W[:, None]).abs().argmin(1)] @ scales


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_is_the_alternation_of_the_paper(bits: int, weighted: bool) -> None:
    weight = random(3, 40, dtype=torch.float64)
    f = random(40, seed=3, dtype=torch.float64).square() if weighted else None
    found = binary_coding(weight, bits, 16, f).to_dense().detach()
    whole = torch.ones(40, dtype=torch.float64) if f is None else f
    for i in range(3):
        for j in range(0, 40, 16):
            part = slice(j, min(j + 16, 40))
            wanted = by_hand(weight[i, part].tolist(), whole[part].tolist(), bits, module.ROUNDS)
            torch.testing.assert_close(found[i, part], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_rounds_only_lower_the_error(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, f, errors = random(16, 128, dtype=torch.float64), random(128, seed=1).square().double(), []
    for rounds in range(8):
        monkeypatch.setattr(module, "ROUNDS", rounds)
        difference = weight - binary_coding(weight, bits, 64, f).to_dense().detach()
        errors.append(float((difference.square() * f).sum()))
    assert all(later <= sooner * (1 + 1e-12) for sooner, later in pairwise(errors))
    assert errors[-1] < 0.98 * errors[0]


def test_sums_of_planes_are_found_again() -> None:
    signs = torch.rand(2, 8, 64, generator=torch.Generator().manual_seed(0)) > 0.5
    weight = BinaryCoded.from_planes(signs, torch.tensor([3.0, 1.0]).expand(8, 1, 2), group=64).to_dense().detach()
    torch.testing.assert_close(binary_coding(weight, 2, 64).to_dense(), weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", ["zero", "one value", "1e-30", "1e30", "unreached"])
def test_groups_that_leave_nothing_to_fit(case: str) -> None:
    weight, f = random(4, 64, dtype=torch.float64), torch.ones(64)
    if case == "zero":
        weight[:, :32] = 0
    elif case == "one value":
        weight[:] = 2.5
    elif case == "unreached":
        f[:32] = 0
    else:
        weight *= float(case)
    matrix = binary_coding(weight, 3, 32, f)
    matrix.check_values()
    error = (weight - matrix.to_dense()).norm() / weight.norm()
    assert error < (1e-12 if case == "one value" else 0.3)
    if case == "zero":
        assert not matrix.to_dense()[:, :32].any()


def test_bytes_are_planes_and_scales() -> None:
    moments = Statistics(input_second_moment=correlated(256))
    structure = eckart.fit(random(32, 256).bfloat16(), "lut-gemm", bits=3, statistics=moments)
    assert isinstance(structure, BinaryCoded)
    assert structure.cost().bytes == 3 * (32 * 256 // 8 + 2 * 32 * 256 // 128)


def test_refuses_groups_of_another_size() -> None:
    with pytest.raises(ValueError, match="multiple of 16, or all 128 columns, got 20"):
        lut_gemm(random(8, 128), Statistics(input_second_moment=torch.eye(128)), group=20)
    with pytest.raises(ValueError, match="none negative"):
        binary_coding(random(8, 128), 2, 64, -torch.ones(128))
