"""LQ-LoRA against the paper's alternation."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS, Metric, Need, Statistics
from eckart.compressors.contract import members
from eckart.compressors.lq_lora import STRIDE, weighted_codes
from eckart.ops.packing import normal_float
from eckart.structures import Quantized
from support import hard
from support.blocks import measured
from support.codes import nearest, relative
from support.layers import layer

SHAPES = pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16), (9, 150), (140, 136)], ids=str)


def fisher_weights(statistics: Statistics, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Roots of the row and column means, as in the paper's code; their scale does not matter."""
    rows, columns = statistics.get(Need.FISHER_ROWS), statistics.get(Need.FISHER_COLUMNS)
    rows, columns = rows + 1e-6 * rows.mean(), columns + 1e-6 * columns.mean()
    return (rows / shape[1]).sqrt()[:, None], (columns / shape[0]).sqrt()


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (9, 70), (40, 64)], ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_lq_lora_against_the_paper_s_alternation(bits: int, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    w1, w2 = fisher_weights(statistics, shape)
    rank, levels = max(1, min(shape) // 8), normal_float(bits)

    def low_rank(rest: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(w1 * rest * w2, full_matrices=False)
        return (u[:, :rank] * s[:rank] @ vh[:rank]) / w1 / w2

    def error(rest: Tensor) -> float:
        return float((w1 * rest * w2).square().sum())

    structure = eckart.fit(weight, "lq-lora", bits=bits, statistics=statistics)
    codes, product = (part.to_dense().detach() for part in structure.operands())
    # The product is the best one for the codes.
    torch.testing.assert_close(product, low_rank(weight - codes), rtol=1e-7, atol=1e-8)
    # The paper: an SVD in every iteration, up to the first rise of the error behind the codes.
    history: list[float] = []
    other = low_rank(weight)
    for _ in range(100):
        rounded = nearest(weight - other, levels, 64)
        history.append(error(weight - rounded - other))
        other = low_rank(weight - rounded)
        if len(history) > 1 and history[-1] > history[-2]:
            break
    assert error(weight - codes - product) < 1.02 * min(history)


def test_lq_lora_states_sums_of_the_fisher_information() -> None:
    # Exactly so where F is of rank one.
    weight = hard.normal(12, 20)
    rows, columns = hard.normal(12, seed=1).square() + 0.1, hard.normal(20, seed=2).square() + 0.1
    fisher = rows.outer(columns)
    family = METHODS.find("lq-lora").entry(weight, Statistics(fisher_rows=fisher.sum(1), fisher_columns=fisher.sum(0)))
    for size, error in zip(family.sizes, family.errors, strict=True):
        difference = weight - family.build(size).structure.to_dense().detach()
        assert float((fisher * difference.square()).sum()) == pytest.approx(float(error), rel=1e-4)


@SHAPES
def test_lq_lora_is_better_than_its_codes_alone(shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    rows, columns = statistics.get(Need.FISHER_ROWS), statistics.get(Need.FISHER_COLUMNS)
    metric = Metric(rows, columns)
    for bits in (2, 3, 4):
        structure = eckart.fit(weight, "lq-lora", bits=bits, statistics=statistics)
        alone = Quantized.quantize(weight, bits, 64, codebook=normal_float(bits))
        assert relative(metric, weight, structure.to_dense()) < relative(metric, weight, alone.to_dense())
        codes, product = structure.operands()
        assert isinstance(codes, Quantized)
        assert product.operands()[0].shape == (shape[0], max(1, min(64, min(shape) // 8)))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_lq_lora_s_scales_are_least_squares(bits: int) -> None:
    weight, columns = hard.normal(20, 100), hard.normal(100, seed=1).square() + 0.1
    book, metric = normal_float(bits), Metric(right=columns)
    plain = Quantized.quantize(weight, bits, 64, codebook=book)
    fitted = weighted_codes(weight, columns, bits, 64, book, weight.dtype)
    assert fitted.cost() == plain.cost()
    error = [float(metric.error(weight - each.to_dense().detach())) for each in (fitted, plain)]
    assert error[0] < {2: 0.75, 3: 0.85, 4: 0.95, 8: 1.0}[bits] * error[1]


def test_lq_lora_is_shared_out_exactly_over_bits() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 32, bias=False), nn.Tanh(), nn.Linear(32, 5))
    before = measured(model)["bytes"]
    result = eckart.compress(model, "lq-lora", keep=0.42, of="bytes", calibration=[hard.normal(64, 24).float()])
    assert measured(model)["bytes"] <= 0.42 * before
    curves = [result.plan.curves[site.name] for site in result.plan.sites]
    fixed = before - sum(curve.costs[-1].bytes for curve in curves)
    best = min(
        sum(curve.errors[i] for curve, i in zip(curves, choice, strict=True))
        for choice in itertools.product(*(range(len(curve.costs)) for curve in curves))
        if fixed + sum(curve.costs[i].bytes for curve, i in zip(curves, choice, strict=True)) <= 0.42 * before
    )
    assert result.plan.error(result.choice) <= best * (1 + 1e-5)


def test_a_size_is_its_bits_and_further_ones_have_other_groups_and_ranks() -> None:
    weight, _, statistics = layer(140, 136)
    family = METHODS.find("lq-lora").entry(weight, statistics)
    bytes_ = [cost.bytes for cost in family.costs]
    assert bytes_ == sorted(bytes_)
    assert {2, 3, 4, 8} <= set(family.sizes)
    assert [own for _, own in members(family, METHODS.find("lq-lora"))] == [size % STRIDE for size in family.sizes]
    found = set()
    for size in family.sizes:
        codes, product = family.build(size).structure.operands()
        assert isinstance(codes, Quantized)
        rank = product.operands()[0].shape[1]
        assert (codes.bits, rank) == (size % STRIDE, 17 if size < STRIDE else rank)
        found.add((codes.group, rank))
    assert {group for group, _ in found} > {64, 128}
    assert {rank for _, rank in found} == {4, 8, 16, 17}


def test_group_and_rank_can_be_said() -> None:
    weight, _, statistics = layer(140, 136)
    structure = eckart.fit(weight, "lq-lora", bits=3, group=32, rank=5, statistics=statistics)
    codes, product = structure.operands()
    assert isinstance(codes, Quantized)
    assert (codes.bits, codes.group, product.operands()[0].shape) == (3, 32, (140, 5))
    family = METHODS.find("lq-lora").taking({"group": 32, "rank": 5}).entry(weight, statistics)
    assert list(family.sizes) == [2, 3, 4, 8]
    for rank in (0, 137):
        with pytest.raises(ValueError, match=f"rank={rank} is not in 1..136, what a matrix 140 x 136 allows"):
            eckart.fit(weight, "lq-lora", bits=3, rank=rank, statistics=statistics)


def test_the_judgement_is_about_right() -> None:
    # Of groups, ranks and 2 to 4 bits that are worth a look, in proportion, against what is measured.
    weight = hard.with_spectrum(96, 128, hard.decaying(96, 0.05), seed=3) + 0.02 * hard.normal(96, 128)
    statistics = Statistics(fisher_rows=torch.ones(96), fisher_columns=torch.ones(128))
    family = METHODS.find("lq-lora").entry(weight, statistics)
    pairs = [
        (float(error), family.expected(size))
        for size, error in zip(family.sizes, family.errors, strict=True)
        if size > STRIDE and size % STRIDE < 8
    ]
    ratios = torch.tensor([error / expected for error, expected in pairs])
    assert ratios.max() < 2 * ratios.min()


def test_one_size_for_all_matrices_is_the_default_of_its_bits() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(160, 144), nn.GELU(), nn.Linear(144, 128))
    result = eckart.compress(model, "lq-lora", bits=3, calibration=[hard.normal(16, 160).float()])
    assert set(result.choice.values()) == {3}
    for module, rank in ((model[0], 18), (model[2], 16)):
        codes, product = module.structure.operands()
        assert (codes.bits, codes.group, product.operands()[0].shape[1]) == (3, 64, rank)
