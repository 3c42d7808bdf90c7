"""Methods that mix codes with dense columns or low rank, each against its formula written out entry by entry."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import eckart
from eckart import METHODS, Metric, Need, Statistics
from eckart.compressors._int8_low_rank import Int8LowRank
from eckart.compressors.lq_lora import weighted_codes
from eckart.linalg import nested_errors, project
from eckart.linalg.quantized_plus_low_rank import codes_and_product
from eckart.ops.packing import normal_float
from eckart.structures import Chain, Dense, Quantized, Selection, Sum
from support import hard
from support.layers import inputs, layer, metric_of, statistics_of

few = settings(deadline=None, max_examples=25)
SHAPES = pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16), (9, 150), (140, 136)], ids=str)
EIGHT = ("svd-int8", "kfac-int8")


def nearest(values: Tensor, levels: Tensor, group: int) -> Tensor:
    """Every entry as the nearest level times the largest magnitude of its group, entry by entry."""
    rounded = torch.zeros_like(values)
    for i in range(values.shape[0]):
        for first in range(0, values.shape[1], group):
            part = values[i, first : first + group]
            scale = part.abs().max()
            for j, value in enumerate(part):
                if scale > 0:
                    rounded[i, first + j] = scale * levels[(value / scale - levels).abs().argmin()]
    return rounded


def relative(metric: Metric, weight: Tensor, dense: Tensor) -> float:
    return float(metric.error(weight.double() - dense.double()) / metric.error(weight.double()))


def test_nf4_is_the_nearest_level_of_the_published_code() -> None:
    # The table of the paper's appendix E.
    published = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                 -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                 0.7229568362236023, 1.0]  # fmt: skip
    weight = hard.normal(6, 150)
    weight[2, 64:128] = 0
    structure = eckart.fit(weight, "nf4", bits=4)
    expected = nearest(weight, torch.tensor(published, dtype=torch.float64), 64)
    torch.testing.assert_close(structure.to_dense().detach(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nf4_takes_four_bits_a_scale_for_64_and_a_codebook(dtype: torch.dtype) -> None:
    structure = eckart.fit(hard.normal(32, 256).to(dtype), "nf4", bits=4)
    assert structure.cost().bytes == 32 * 256 // 2 + (32 * 256 // 64 + 16) * dtype.itemsize


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
    fitted = weighted_codes(weight, columns, bits, book, weight.dtype)
    assert fitted.cost() == plain.cost()
    error = [float(metric.error(weight - each.to_dense().detach())) for each in (fitted, plain)]
    assert error[0] < {2: 0.75, 3: 0.85, 4: 0.95, 8: 1.0}[bits] * error[1]


def test_lq_lora_returns_the_best_codes() -> None:
    weight, ones = hard.normal(6, 8), torch.ones(8, dtype=torch.float64)
    start = project(weight, Metric()).factors(weight, 1)
    made: list[Quantized] = []

    def quantize(rest: Tensor) -> Quantized:
        # Coarse codes are the third, which raise the error again.
        bits = 2 if len(made) == 2 else 2 + len(made)
        made.append(Quantized.quantize(rest, bits, 64, codebook=normal_float(bits)))
        return made[-1]

    chosen, left, right = codes_and_product(weight, ones[:6], ones, start, quantize)
    assert len(made) == 3
    assert chosen is made[1]
    rest = weight - chosen.to_dense().detach()
    assert float((rest - left @ right).square().sum()) == pytest.approx(float(project(rest, Metric()).errors[1]))


def test_lq_lora_is_shared_out_exactly_over_bits() -> None:
    from test_compress import calibration, measured, plain

    model = plain()
    before = measured(model)["bytes"]
    result = eckart.compress(model, "lq-lora", keep=0.42, of="bytes", calibration=calibration(model))
    assert measured(model)["bytes"] <= 0.42 * before
    curves = [result.plan.curves[site.name] for site in result.plan.sites]
    fixed = before - sum(curve.costs[-1].bytes for curve in curves)
    best = min(
        sum(curve.errors[i] for curve, i in zip(curves, choice, strict=True))
        for choice in itertools.product(*(range(len(curve.costs)) for curve in curves))
        if fixed + sum(curve.costs[i].bytes for curve, i in zip(curves, choice, strict=True)) <= 0.42 * before
    )
    assert result.plan.error(result.choice) <= best * (1 + 1e-5)


@few
@given(
    out=st.integers(1, 9), columns=st.integers(1, 9), k=st.integers(1, 7), sides=st.integers(0, 8),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_nested_errors_are_those_of_every_product(out: int, columns: int, k: int, sides: int, seed: int) -> None:
    weight, left, right = (
        hard.normal(*s, seed=seed + i) for i, s in enumerate(((out, columns), (out, k), (k, columns)))
    )
    g, h = hard.normal(out, out, seed=seed + 3), hard.normal(columns, columns, seed=seed + 4)
    metric = Metric([None, g[0].square(), g @ g.T][sides % 3], [None, h[0].square(), h @ h.T][sides // 3])
    expected = torch.stack([metric.error(weight - left[:, :r] @ right[:r]) for r in range(k + 1)])
    torch.testing.assert_close(nested_errors(weight, left, right, metric), expected, rtol=1e-9, atol=1e-9)


def int8_metric(name: str, statistics: Statistics) -> Metric:
    return (
        Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT)) if name == "svd-int8" else metric_of("kfac", statistics)
    )


@SHAPES
@pytest.mark.parametrize("name", EIGHT)
def test_int8_errors_are_those_of_what_is_built(name: str, shape: tuple[int, int]) -> None:
    weight, x, statistics = layer(*shape)
    family, metric = METHODS[name].entry(weight, statistics), int8_metric(name, statistics)
    optimum = project(weight, metric).errors
    zero = float(metric.error(weight))
    assert family.zero_error == pytest.approx(zero)
    for size, error, cost in zip(family.sizes, family.errors, family.costs, strict=True):
        fitted = family.build(size)
        dense = fitted.structure.to_dense().detach()
        assert float(metric.error(weight - dense)) == pytest.approx(float(error), rel=1e-6, abs=1e-12 * zero)
        assert fitted.error == pytest.approx(float(error), rel=1e-9, abs=1e-12 * zero)
        assert torch.linalg.matrix_rank(dense) <= size
        assert cost.parameters >= size * sum(shape)
        # Rounding to 8 bits costs a ten-thousandth of what is kept, not more.
        assert float(optimum[size]) * (1 - 1e-9) <= float(error) <= float(optimum[size]) + 3e-4 * zero
        if name == "kfac-int8":
            assert fitted.bias is not None
            torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)


@SHAPES
@pytest.mark.parametrize("name", EIGHT)
def test_int8_ranks_are_slices_of_one_product(name: str, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    family = METHODS[name].entry(weight.float(), statistics)
    sizes = list(family.sizes)
    left, right = family.build(sizes[-1]).structure.operands()
    for size in (sizes[0], sizes[len(sizes) // 2]):
        a, b = family.build(size).structure.operands()
        assert torch.equal(a.to_dense(), left.to_dense()[:, :size])
        assert torch.equal(b.to_dense(), right.to_dense()[:size])
        assert a.state_dict()["codes"].is_contiguous()
        assert a.state_dict()["codes"].untyped_storage().nbytes() == shape[0] * size


@SHAPES
def test_svd_int8_rounds_an_orthonormal_factor(shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    family = METHODS.find("svd-int8").entry(weight, statistics)
    assert isinstance(family, Int8LowRank)
    left = family.left.to_dense().detach()
    gram = left.T @ left
    gram = gram / gram[0, 0]
    torch.testing.assert_close(gram, torch.eye(len(gram)).double(), rtol=0, atol=0.02)
    # The columns are the leading eigenvectors of W C W^T.
    moment = weight @ statistics.get(Need.INPUT_SECOND_MOMENT) @ weight.T
    vectors = torch.linalg.eigh(moment)[1].flip(1)[:, : left.shape[1]]
    cosines = (torch.nn.functional.normalize(left, dim=0) * vectors).sum(0).abs()
    assert cosines[: len(cosines) // 2].min() > 0.999


def test_int8_lets_high_ranks_pay() -> None:
    weight, _, statistics = layer(192, 192)
    for dtype, top in ((torch.bfloat16, 176), (torch.float32, 192)):
        sizes = list(METHODS.find("svd-int8").entry(weight.to(dtype), statistics).sizes)
        assert sizes == list(range(8, top + 1, 8))
        assert sizes[-1] > 192 / 2


def test_int8_factors_of_a_short_dtype_do_not_overflow() -> None:
    weight = (hard.normal(32, 64) * 2e4).clamp(-6e4, 6e4).half()
    x = inputs(64)
    family = METHODS.find("svd-int8").entry(weight, statistics_of(x, inputs(32)))
    dense = family.build(32).structure.to_dense()
    assert torch.isfinite(dense).all()
    assert relative(Metric(), weight, dense) < 1e-3


def test_int8_ranks_outside_the_matrix_are_refused() -> None:
    weight, _, statistics = layer(10, 14)
    for rank in (0, 11):
        with pytest.raises(ValueError, match=f"rank={rank}.*ranks 1 to 10"):
            eckart.fit(weight, "svd-int8", rank=rank, statistics=statistics)


def test_int8_takes_the_best_of_the_ranks_where_rounding_rules() -> None:
    # Of rank two: what further ranks add is less than what rounding loses.
    weight = hard.normal(20, 2) @ hard.normal(2, 30, seed=1)
    family = METHODS.find("svd-int8").entry(weight, layer(20, 30)[2])
    assert (family.errors.diff() <= 0).all()
    for size, error in zip(family.sizes, family.errors, strict=True):
        assert family.build(size).error == pytest.approx(float(error), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["nf4", "llm-int8", "lq-lora", *EIGHT])
def test_short_dtypes_cost_little_accuracy(name: str, dtype: torch.dtype) -> None:
    weight, _, statistics = layer(24, 64)
    weight = weight.to(dtype)
    size = {"nf4": 4, "llm-int8": 4, "lq-lora": 3}.get(name, 8)
    exact, short = (
        METHODS[name].entry(w, statistics).build(size).structure.to_dense() for w in (weight.double(), weight)
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
