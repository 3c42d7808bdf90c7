"""Codes that are fitted size by size: short dtypes, and what cannot pay."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS, Metric, Need
from eckart.compressors._one_by_one import BITS
from eckart.compressors.gptq import gptq
from eckart.compressors.rtn import round_to_nearest
from eckart.statistics.needs import Statistics
from eckart.structures import exact_input
from support.codes import EIGHT, relative
from support.layers import layer
from support.quantizing import random


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["nf4", "llm-int8", "lq-lora", *EIGHT])
def test_short_dtypes_cost_little_accuracy(name: str, dtype: torch.dtype) -> None:
    weight, _, statistics = layer(24, 64)
    weight = weight.to(dtype)
    size = {"nf4": 4, "llm-int8": 4, "lq-lora": 3}.get(name, 8)
    exact, short = (
        exact_input(METHODS[name].entry(w, statistics).build(size).structure).to_dense()
        for w in (weight.double(), weight)
    )
    metric = Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT))
    error = relative(metric, weight, exact) ** 0.5
    assert relative(metric, weight, short) ** 0.5 == pytest.approx(error, rel=0.1)


def test_fits_that_cannot_pay_are_not_offered() -> None:
    weight, _, statistics = layer(6, 1)
    for name in ("nf4", "llm-int8", "lq-lora"):
        family = METHODS[name].entry(weight.half(), statistics)
        assert list(family.sizes) == []
        assert family.errors.shape == (0,)
    # A codebook of 8 bits is larger than this matrix.
    assert list(METHODS.find("lq-lora").entry(*layer(12, 20)[::2]).sizes) == [2, 3, 4]


AWKWARD = {
    "zero": torch.zeros(8, 40),
    "constant rows": torch.linspace(-2, 3, 8)[:, None].expand(8, 40),
    "one row": random(1, 40),
    "one entry": random(1, 1),
    "bfloat16": random(8, 40, dtype=torch.bfloat16),
    "huge": random(8, 40) * 1e30,
    "tiny": random(8, 40) * 1e-30,
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("method", [round_to_nearest, gptq])
def test_awkward_matrices(name: str, method) -> None:
    weight = AWKWARD[name]
    columns = weight.shape[1]
    x = random(10, columns, seed=4)
    x[:, columns // 2 + 1 :: 3] = 0  # fewer tokens than inputs, some of which are always zero
    family = method(weight, Statistics(10, input_second_moment=x.T @ x / 10))
    errors = family.errors
    assert errors.dtype == torch.float64
    assert torch.isfinite(errors).all()
    assert (errors.diff() <= 0).all()
    assert list(family.sizes) == list(BITS)
    for size, cost in zip(family.sizes, family.costs, strict=True):
        structure = family.build(size).structure
        assert structure.dtype == weight.dtype
        assert structure.shape == weight.shape
        assert structure.cost().bytes <= cost.bytes
        assert torch.isfinite(structure.to_dense()).all()
    if name in ("zero", "constant rows"):
        torch.testing.assert_close(family.build(4).structure.to_dense(), weight.contiguous())


@pytest.mark.parametrize("method", [round_to_nearest, gptq])
def test_a_weight_with_nan_is_refused(method) -> None:
    weight = random(4, 8)
    weight[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"weight of shape \(4, 8\) has 1 NaN"):
        method(weight, Statistics(1, input_second_moment=torch.eye(8)))
