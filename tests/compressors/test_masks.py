"""Masks, and what all pruning papers share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import eckart
from eckart import METHODS, Metric, Statistics, StructuredLinear
from eckart.compressors._masks import share
from eckart.ops.order_statistics import largest
from eckart.structures import Masked, SemiSparse
from support import hard
from support.pruning import SEMI, UNSTRUCTURED, correlated, fitted

few = settings(deadline=None, max_examples=25)


@few
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 99), st.data())
def test_largest_against_a_stable_sort(rows: int, columns: int, seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, columns))
    levels = data.draw(st.sampled_from([1, 3, 1000]))  # with many ties, and with few
    score = torch.randint(levels, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()
    mask = largest(score, kept)
    for row, chosen in zip(score.tolist(), mask.tolist(), strict=True):
        order = sorted(range(columns), key=lambda j: -row[j])[:kept]
        assert [j for j in range(columns) if chosen[j]] == sorted(order)


@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_an_exact_number_is_stored(name: str) -> None:
    for out, columns in ((7, 30), (5, 300), (1, 9), (9, 1), (30, 3)):
        weight = hard.normal(out, columns, seed=3).to(torch.bfloat16)
        family = METHODS[name].entry(weight, Statistics(1, input_second_moment=correlated(columns)))
        dense = weight.numel() * weight.element_size()
        for size, cost in zip(family.sizes, family.costs, strict=True):
            structure = family.build(size).structure
            structure.check_values()
            assert structure.cost() == cost
            assert cost.bytes < dense
            if isinstance(structure, Masked):
                expected = {
                    "magnitude": share(size, out * columns),
                    "wanda": out * share(size, columns),
                    "sparsegpt": sum(share(size, out * min(128, columns - j)) for j in range(0, columns, 128)),
                }[name]
                assert cost.parameters == expected > 0
                compared = {"magnitude": 1, "wanda": out, "sparsegpt": -(-columns // 128)}[name]
                assert -1e-9 < size / 100 * out * columns - expected < compared
            else:
                assert isinstance(structure, SemiSparse)
                assert (structure.to_dense() != 0).sum(1).tolist() == [
                    sum(min(size, columns - j, 4) for j in range(0, columns, 4))
                ] * out
        assert list(family.sizes) or columns == 1


@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_a_matrix_without_smaller_forms_offers_none(name: str) -> None:
    family = METHODS[name].entry(torch.ones(1, 1), Statistics(1, input_second_moment=torch.ones(1, 1)))
    assert len(family.sizes) == len(family.costs) == len(family.errors) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_the_file_has_the_bytes_of_the_cost(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    weight = hard.normal(24, 45, seed=5).to(dtype)
    family = METHODS[name].entry(weight, Statistics(1, input_second_moment=correlated(45)))
    for size, cost in zip(family.sizes, family.costs, strict=True):
        folder = tmp_path / str(size)
        eckart.save(nn.Sequential(StructuredLinear(family.build(size).structure)), folder)
        (file,) = folder.glob("*.safetensors")
        blob = file.read_bytes()
        assert cost.bytes == len(blob) - 8 - int.from_bytes(blob[:8], "little") < weight.numel() * dtype.itemsize


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_surgery_beats_scores_and_scores_beat_magnitudes(seed: int, dtype: torch.dtype) -> None:
    weight, moment = hard.normal(40, 200, seed=10 + seed).to(dtype), correlated(200, seed=20 + seed)
    metric = Metric(right=moment)
    for suffix, sizes in (("", range(20, 85, 10)), ("-semi", range(1, 4))):
        for size in sizes:
            magnitude, wanda, sparsegpt = (
                float(metric.error(weight.double() - fitted(name + suffix, weight, moment, size).double()))
                for name in UNSTRUCTURED
            )
            assert sparsegpt < wanda < magnitude


@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_where_nothing_was_seen_magnitudes_decide(name: str) -> None:
    weight = hard.normal(8, 100, seed=11)
    size = 50 if METHODS[name].size == "percent" else 2
    pruned = fitted(name, weight, torch.zeros(100, 100), size)
    assert torch.equal(pruned, torch.where(pruned == 0, 0.0, weight))
    assert weight[pruned == 0].abs().mean() < 0.5 * weight[pruned != 0].abs().mean()


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_silent_inputs_go_first(name: str) -> None:
    weight, moment = hard.normal(8, 40, seed=11), correlated(40)
    weight[:, 3] *= 1e3
    moment[3, :] = moment[:, 3] = 0
    assert not fitted(name, weight, moment, 90)[:, 3].any()
    metric = Metric(right=moment)
    assert float(metric.error(weight - fitted(name, weight, moment, 95))) < 0.02 * float(metric.error(weight))


@pytest.mark.parametrize("name", ["wanda", "wanda-semi", "sparsegpt", "sparsegpt-semi"])
def test_statistics_that_do_not_fit_are_refused(name: str) -> None:
    statistics = Statistics(1, input_second_moment=torch.eye(9))
    with pytest.raises(ValueError, match=r"second moment of shape \(9, 9\) does not fit a weight of shape \(4, 8\)"):
        METHODS[name].entry(torch.ones(4, 8), statistics)
    if name.startswith("sparsegpt"):
        indefinite = replace(statistics, input_second_moment=2 * torch.ones(8, 8) - torch.eye(8))
        with pytest.raises(ValueError, match="not symmetric positive semi-definite"):
            _ = METHODS[name].entry(torch.ones(4, 8), indefinite).errors
