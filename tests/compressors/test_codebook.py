"""Levels of the matrix's own: Lloyd's iteration written out, and the compensation by columns yet to come."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart.metrics import Metric
from eckart.ops.codebooks import NEAR_ZERO, ROUNDS, fitted_codebook
from eckart.ops.packing import normal_float
from eckart.structures import Quantized
from support import hard
from support.quantizing import correlated


def lloyd(w: Tensor, bits: int, importance: Tensor) -> Tensor:
    """Levels of w (rows, groups, k), entry by entry in float64."""
    levels = normal_float(bits).double()
    w, f = w.double(), importance.double().expand(w.shape)
    high, low = w.amax(-1).clamp_min(0) / levels[-1], w.amin(-1).clamp_max(0) / levels[0]
    scales = torch.maximum(high, low)
    for _ in range(ROUNDS):
        for fresh in (True, False):
            unit = torch.where(scales == 0, torch.ones_like(scales), scales)[..., None]
            codes = ((w / unit)[..., None] - levels).abs().argmin(-1)
            points = levels[codes]
            if fresh:
                over, under = (f * w * points).sum(-1), (f * points**2).sum(-1)
                scales = torch.where((over > 0) & (under > 0), over / under, scales)
        s = scales[..., None].expand(w.shape)
        for k in range(len(levels)):
            mine = codes == k
            if (f * s * s)[mine].sum() > 0:
                levels[k] = (f * s * w)[mine].sum() / (f * s * s)[mine].sum()
        levels = levels.sort().values
        levels[0], levels[-1] = min(levels[0], -NEAR_ZERO), max(levels[-1], NEAR_ZERO)
        largest = levels.abs().max()
        levels, scales = levels / largest, scales * largest
    return levels


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_levels_are_those_of_lloyds_iteration(bits: int, weighted: bool) -> None:
    w = hard.normal(24, 64).view(24, 4, 16)
    importance = torch.rand(4, 16, generator=torch.Generator().manual_seed(1)) + 0.1 if weighted else torch.ones(1)
    found = fitted_codebook(w, bits, torch.float64, importance)
    torch.testing.assert_close(found, lloyd(w, bits, importance), rtol=1e-9, atol=1e-9)


def test_levels_that_are_there_are_found() -> None:
    levels = torch.tensor([-1.0, -0.3, 0.2, 0.7])
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(4, (64, 4, 32), generator=draw)
    scales = torch.rand(64, 4, 1, generator=draw) + 0.5
    found = fitted_codebook(levels[codes] * scales, 2, torch.float32, torch.ones(1))
    torch.testing.assert_close(found, levels, rtol=1e-4, atol=1e-4)
    weight = (levels[codes] * scales).view(64, 128)
    structure = eckart.fit(weight, "codebook", bits=2, group=32)
    torch.testing.assert_close(structure.to_dense().detach(), weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_errs_less_than_grids_and_normal_quantiles_in_as_many_bytes(bits: int) -> None:
    weight = hard.normal(128, 256)
    found = eckart.fit(weight, "codebook", bits=bits)
    others = [Quantized.quantize(weight, bits, 64), Quantized.quantize(weight, bits, 64, codebook=normal_float(bits))]
    for other in others:
        assert (found.to_dense() - weight).norm() < 0.97 * (other.to_dense() - weight).norm()
    assert found.cost().bytes == others[1].cost().bytes < others[0].cost().bytes


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_later_columns_make_up_for_earlier_ones(bits: int) -> None:
    weight, moment = hard.normal(64, 128), correlated(128)
    metric, statistics = Metric(right=moment), eckart.Statistics(input_second_moment=moment)
    plain = eckart.fit(weight, "codebook", bits=bits)
    swept = eckart.fit(weight, "codebook-gptq", bits=bits, statistics=statistics)
    errors = [float(metric.error(weight - each.to_dense().detach())) for each in (swept, plain)]
    assert errors[0] < 0.6 * errors[1]


def test_with_white_inputs_the_sweep_is_plain_rounding() -> None:
    weight = hard.normal(16, 64)
    white = eckart.Statistics(input_second_moment=torch.eye(64))
    torch.testing.assert_close(
        eckart.fit(weight, "codebook-gptq", bits=3, statistics=white).to_dense(),
        eckart.fit(weight, "codebook", bits=3).to_dense(),
    )


@pytest.mark.parametrize("method", ["codebook", "codebook-gptq"])
@pytest.mark.parametrize("values", ["zero", "positive", "negative", "one entry", "constant"])
def test_matrices_of_few_values(method: str, values: str) -> None:
    weight = {
        "zero": torch.zeros(8, 64),
        "positive": hard.normal(8, 64).abs() + 0.1,
        "negative": -hard.normal(8, 64).abs() - 0.1,
        "one entry": torch.zeros(8, 64).index_put_((torch.tensor(3), torch.tensor(5)), torch.tensor(2.0)),
        "constant": torch.full((8, 64), -3.0),
    }[values]
    statistics = eckart.Statistics(input_second_moment=torch.eye(64))
    structure = eckart.fit(weight, method, bits=4, statistics=statistics)
    assert torch.isfinite(structure.to_dense()).all()
    assert (structure.to_dense() - weight).norm() <= 0.1 * weight.norm()
