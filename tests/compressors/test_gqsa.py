"""GQSA: the groups of `group-sparse`, rounded to 4 bits as GPTQ rounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart import METHODS, Metric, Statistics
from eckart.compressors._groups import SortedInputs
from eckart.compressors.gqsa import rounded
from eckart.linalg.optimal_brain_surgery import inverse_factor
from eckart.ops.packing import unpack
from eckart.structures import Chain, GroupSparse, GroupSparseCodes
from support import hard
from support.pruning import correlated, fitted


def matrix(name: str, weight: Tensor, moment: Tensor, percent: int) -> GroupSparse | GroupSparseCodes:
    chain = METHODS[name].entry(weight, Statistics(1, input_second_moment=moment)).build(percent).structure
    assert isinstance(chain, Chain)
    found = chain.operands()[0]
    assert isinstance(found, GroupSparse | GroupSparseCodes)
    found.check_values()
    return found


@pytest.mark.parametrize("percent", [30, 60])
def test_the_groups_are_those_of_group_sparse(percent: int) -> None:
    weight, moment = hard.normal(9, 70, seed=1), correlated(70)
    coded, values = (matrix(name, weight, moment, percent) for name in ("gqsa", "group-sparse"))
    assert torch.equal(coded.places, values.places)
    assert torch.equal(coded.counts, values.counts)


def test_columns_are_rounded_in_turn() -> None:
    out, columns = 5, 37
    weight, moment = hard.normal(out, columns, seed=2), correlated(columns)
    inputs = SortedInputs.of(weight, moment)
    kept = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]]).bool()
    pruned = inputs.pruned(kept)
    coded = rounded(pruned, kept, inverse_factor(inputs.moment), torch.float64)
    coded.check_values()
    scale = torch.zeros(out, 3).double()
    scale[kept] = coded.scales.detach()
    damped = inputs.moment + 1e-2 * inputs.moment.diagonal().mean() * torch.eye(columns).double()
    rest, expected = pruned.clone(), torch.zeros(out, columns).double()
    for i in range(out):
        for j in range(columns):
            if kept[i, j // 16]:
                s = scale[i, j // 16]
                expected[i, j] = s * (rest[i, j] / s).round().clamp(-8, 7)
            later = slice(j + 1, columns)
            if j + 1 < columns:
                shift = torch.linalg.solve(damped[later, later], damped[later, j])
                rest[i, later] += shift * (rest[i, j] - expected[i, j])
    torch.testing.assert_close(coded.to_dense().detach(), expected, rtol=1e-9, atol=1e-9)


def test_all_groups_at_four_bits_beat_rounding_to_nearest() -> None:
    weight, moment = hard.normal(40, 128, seed=3).float(), correlated(128)
    metric = Metric(right=moment)
    made = fitted("gqsa", weight, moment, 100)
    nearest = GroupSparseCodes.quantize(weight, torch.ones(40, 8).bool(), 4).to_dense()
    assert float(metric.error(weight - made)) < 0.7 * float(metric.error(weight - nearest.detach()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_and_codes(dtype: torch.dtype) -> None:
    weight, moment = hard.normal(12, 64, seed=4).to(dtype), correlated(64)
    structure = eckart.fit(weight, "gqsa", statistics=Statistics(1, input_second_moment=moment), percent=50)
    assert structure.cost().bytes == 24 * (8 + dtype.itemsize + 1) + 12 + 4 * 64
    coded = structure.operands()[0]
    assert isinstance(coded, GroupSparseCodes)
    assert coded.scales.dtype == dtype
    assert int(unpack(coded.codes, 4, 16).max()) <= 15
