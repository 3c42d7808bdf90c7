"""LLM.int8() against the paper's split, entry by entry."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import eckart
from eckart import METHODS, Metric, Statistics
from eckart.structures import Chain, Dense, Quantized, Selection, Sum
from support import hard
from support.codes import relative
from support.layers import inputs, layer


def outlier_inputs(columns: int, places: list[int]) -> Tensor:
    """Inputs (tokens, in) of which some features, and no others, exceed 6 in magnitude."""
    x = inputs(columns).clamp(-3, 3)
    x[:, places] = 12 * hard.normal(len(x), len(places), seed=40).sign()
    return x


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_llm_int8_is_the_paper_s_split(bits: int) -> None:
    places = [7, 200, 299]
    x = outlier_inputs(300, places)
    assert torch.equal((x.abs() >= 6).any(0).nonzero()[:, 0], torch.tensor(places))
    weight = hard.normal(10, 300)
    statistics = Statistics(input_second_moment=x.T @ x / len(x))
    structure = eckart.fit(weight, "llm-int8", bits=bits, statistics=statistics)
    rest = weight.clone()
    rest[:, places] = 0
    half = 2 ** (bits - 1)
    expected = torch.empty_like(rest)
    for i, row in enumerate(rest):
        scale = max(float(row.max()) / (half - 1), -float(row.min()) / half)
        for j, value in enumerate(row):
            expected[i, j] = scale * min(max(round(float(value) / scale), -half), half - 1)
    assert not expected[:, places].any()
    expected[:, places] = weight[:, places]
    torch.testing.assert_close(structure.to_dense().detach(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(structure.to_dense()[:, places], weight[:, places])


def test_llm_int8_stores_what_it_says() -> None:
    x = outlier_inputs(300, [7, 200, 299])
    family = METHODS.find("llm-int8").entry(
        hard.normal(10, 300).half(), Statistics(input_second_moment=x.T @ x / len(x))
    )
    structure = family.build(4).structure
    assert isinstance(structure, Sum)
    codes, kept = structure.operands()
    assert isinstance(codes, Quantized)
    assert isinstance(kept, Chain)
    values, selection = kept.operands()
    assert isinstance(values, Dense)
    assert isinstance(selection, Selection)
    assert selection.index.tolist() == [7, 200, 299]
    assert structure.cost().bytes == 10 * 300 // 2 + 10 * 2 + 10 * 3 * 2 + 3 * 4
    assert list(family.sizes) == [2, 3, 4, 8]


def test_llm_int8_profits_from_outliers() -> None:
    x = outlier_inputs(128, [31])
    weight, moment = hard.normal(16, 128), x.T @ x / len(x)
    structure = eckart.fit(weight, "llm-int8", bits=8, statistics=Statistics(input_second_moment=moment))
    plain = Quantized.quantize(weight, 8, 128, symmetric=True)
    metric = Metric(right=moment)
    assert relative(metric, weight, structure.to_dense()) < 0.5 * relative(metric, weight, plain.to_dense())


def test_llm_int8_takes_the_diagonal_of_a_moment() -> None:
    weight, x, statistics = layer(10, 300)
    diagonal = dataclasses.replace(statistics, input_second_moment=x.square().mean(0))
    one, other = (eckart.fit(weight, "llm-int8", bits=4, statistics=s).to_dense() for s in (statistics, diagonal))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"5 inputs does not fit a weight of shape \(10, 300\)"):
        eckart.fit(weight, "llm-int8", bits=4, statistics=Statistics(input_second_moment=torch.eye(5)))
