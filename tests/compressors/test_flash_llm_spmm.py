"""Masks by the Fisher information, and the product that reads them sparse and multiplies dense."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart.compressors._masks import share
from eckart.compressors.flash_llm_spmm import flash_llm_spmm
from eckart.statistics.needs import Statistics
from eckart.structures import Masked
from support import hard


def statistics(out: int, columns: int) -> Statistics:
    return Statistics(
        fisher_rows=hard.normal(out, seed=1).square() + 0.01,
        fisher_columns=hard.normal(columns, seed=2).square() + 0.01,
    )


@pytest.mark.parametrize("percent", [5, 50, 85])
def test_keeps_the_largest_by_hand(percent: int) -> None:
    weight, s = hard.normal(13, 22, seed=6), statistics(13, 22)
    assert s.fisher_rows is not None
    assert s.fisher_columns is not None
    worth = {
        (i, j): float(weight[i, j]) ** 2 * float(s.fisher_rows[i]) * float(s.fisher_columns[j])
        for i in range(13)
        for j in range(22)
    }
    kept = sorted(worth, key=lambda place: worth[place], reverse=True)[: share(percent, 13 * 22)]
    expected = torch.zeros_like(weight)
    for place in kept:
        expected[place] = weight[place]
    assert flash_llm_spmm(weight, s).build(percent).structure.to_dense().tolist() == expected.tolist()


def test_no_other_mask_of_that_size_is_better_in_its_metric() -> None:
    weight, s = hard.normal(8, 12, seed=3), statistics(8, 12)
    family, draw = flash_llm_spmm(weight, s), torch.Generator().manual_seed(0)
    error = float(family.errors[list(family.sizes).index(50)])
    for _ in range(50):
        kept = torch.zeros(96, dtype=torch.bool)
        kept[torch.randperm(96, generator=draw)[: share(50, 96)]] = True
        assert error <= float(family.metric.error(weight * ~kept.view(8, 12)))


@pytest.mark.parametrize("batch", [1, 8, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_dense_matrix(batch: int, dtype: torch.dtype) -> None:
    weight, x = hard.normal(300, 70, seed=4).to(dtype), hard.normal(batch, 70, seed=5).float()
    structure = eckart.fit(weight, "flash-llm-spmm", percent=30, statistics=statistics(300, 70))
    assert isinstance(structure, Masked)
    with torch.no_grad():
        torch.testing.assert_close(structure(x), x @ structure.to_dense().float().T, rtol=1e-5, atol=1e-5)


def test_half_of_the_entries_in_16_bits_take_nine_sixteenths_of_the_bytes() -> None:
    structure = eckart.fit(
        hard.normal(64, 128).bfloat16(), "flash-llm-spmm", percent=50, statistics=statistics(64, 128)
    )
    assert structure.cost().bytes == 64 * 128 * 2 * 9 // 16
