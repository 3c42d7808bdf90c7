"""LLM.int8() against the paper's split, entry by entry."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import eckart
from eckart import METHODS, Statistics
from eckart.structures import Chain, Dense, Quantized, RoundedInput, Selection, Sum
from support import hard
from support.layers import inputs, layer, statistics_of


def outlier_inputs(columns: int, places: list[int]) -> Tensor:
    """Inputs (tokens, in) of which some features, and no others, exceed six times the size of all."""
    x = inputs(columns).clamp(-3, 3)
    x = x / x.square().mean().sqrt()
    x[::9, places] = 40 * hard.normal(len(x), len(places), seed=40)[::9].sign()
    return x


def of(x: Tensor) -> Statistics:
    return statistics_of(x, inputs(10, seed=35))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_llm_int8_is_the_paper_s_product(bits: int) -> None:
    places = [7, 200, 299]
    x = outlier_inputs(300, places)
    threshold = 6 * x.square().mean().sqrt()
    assert torch.equal((x.abs() > threshold).any(0).nonzero()[:, 0], torch.tensor(places))
    weight = hard.normal(10, 300)
    structure = eckart.fit(weight, "llm-int8", bits=bits, statistics=of(x))
    others = [j for j in range(300) if j not in places]
    half = 2 ** (bits - 1)
    expected = x[:, places] @ weight[:, places].T
    for i, row in enumerate(weight[:, others]):
        scale = max(float(row.max()) / (half - 1), -float(row.min()) / half)
        codes = (row / scale).round().clamp(-half, half - 1)
        for t, token in enumerate(x[:, others]):
            step = float(token.abs().max()) / 127
            expected[t, i] += scale * step * float((token / step).round() @ codes)
    torch.testing.assert_close(structure(x).detach(), expected, rtol=1e-9, atol=1e-9)


def test_llm_int8_stores_what_it_says() -> None:
    x = outlier_inputs(300, [7, 200, 299])
    family = METHODS.find("llm-int8").entry(hard.normal(10, 300).half(), of(x))
    structure = family.build(4).structure
    assert isinstance(structure, Sum)
    integers, kept = structure.operands()
    assert isinstance(integers, Chain)
    rounded, left = integers.operands()
    assert isinstance(rounded, RoundedInput)
    assert isinstance(rounded.matrix, Quantized)
    assert isinstance(left, Selection)
    assert isinstance(kept, Chain)
    values, selection = kept.operands()
    assert isinstance(values, Dense)
    assert isinstance(selection, Selection)
    assert selection.index.tolist() == [7, 200, 299]
    index = selection.index.element_size()
    assert structure.cost().bytes == 10 * -(-297 // 2) + 10 * 2 + 10 * 3 * 2 + 300 * index
    assert list(family.sizes) == [2, 3, 4, 8]


def test_llm_int8_profits_from_outliers() -> None:
    x = outlier_inputs(128, [31])
    weight = hard.normal(10, 128)
    split = eckart.fit(weight, "llm-int8", bits=8, statistics=of(x))
    plain = RoundedInput(Quantized.quantize(weight, 8, 128, symmetric=True), bits=8)
    y = x @ weight.T
    assert (split(x) - y).norm() < 0.5 * (plain(x) - y).norm()


def test_without_outliers_all_is_integers() -> None:
    x = hard.normal(50, 20).clamp(-2, 2)
    structure = eckart.fit(hard.normal(10, 20), "llm-int8", bits=8, statistics=statistics_of(x[:48], inputs(10)[:48]))
    assert isinstance(structure, RoundedInput)


def test_no_more_than_a_share_is_taken_for_outliers() -> None:
    x = outlier_inputs(300, list(range(0, 200, 10)))
    structure = eckart.fit(hard.normal(10, 300), "llm-int8", bits=8, statistics=of(x))
    kept = structure.operands()[1].operands()[1]
    assert len(kept.index) == 3


def test_statistics_that_do_not_fit_are_refused() -> None:
    weight, _, _ = layer(10, 300)
    with pytest.raises(ValueError, match=r"does not fit a weight of shape \(10, 300\)"):
        eckart.fit(weight, "llm-int8", bits=4, statistics=Statistics(input_second_moment=torch.eye(5)))


def test_llm_int8_takes_the_diagonal_of_a_moment() -> None:
    weight, x, statistics = layer(10, 300)
    diagonal = replace(statistics, input_second_moment=x.square().mean(0))
    one, other = (eckart.fit(weight, "llm-int8", bits=4, statistics=s)(x) for s in (statistics, diagonal))
    assert torch.equal(one, other)
