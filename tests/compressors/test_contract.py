"""Every registered method against one suite, and the low-rank papers against their formulas written out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS, Metric, Need, Statistics, StructuredLinear
from eckart.compressors._low_rank import LowRank
from eckart.compressors.contract import Family
from eckart.linalg import project
from support import hard
from support.layers import NESTED, WITH_METRIC, layer, metric_of

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def decomposes(name: str) -> bool:
    """Whether a method squares all of a matrix, which entries of 1e200 do not survive."""
    try:
        METHODS[name].entry(1e200 * hard.weights()["general"], layer(hard.OUT, hard.IN)[2])
    except ValueError as error:
        return "overflows" in str(error)
    return False


DECOMPOSED = [name for name in METHODS if decomposes(name)]


def some_sizes(family: Family) -> list[int]:
    """The smallest, a middle and the largest size; for nested optima the matrix itself too."""
    sizes = list(family.sizes)
    some = [sizes[0], sizes[len(sizes) // 2], sizes[-1]] if sizes else []
    return list(dict.fromkeys([*some, min(family.weight.shape)] if isinstance(family, LowRank) else some))


def middle(family: Family) -> int:
    return list(family.sizes)[len(family.sizes) // 2]


@pytest.mark.parametrize("shape", [(12, 24), (24, 16), (16, 16)], ids=str)
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_family_keeps_its_promises(name: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    weight = weight.to(dtype)
    before = weight.clone()
    family = METHODS[name].entry(weight, statistics)
    sizes, costs, errors = list(family.sizes), list(family.costs), family.errors
    assert len(sizes) == len(set(sizes))
    assert len(sizes) == len(costs) == len(errors) > 0
    assert [c.bytes for c in costs] == sorted(c.bytes for c in costs)
    assert errors.dtype == torch.float64
    assert (errors >= 0).all()
    assert (errors.diff() <= 0).all() or hasattr(family, "members")
    for size, cost in zip(sizes, costs, strict=True):
        if size not in some_sizes(family):
            continue
        fitted = family.build(size)
        structure = fitted.structure
        assert structure.shape == shape
        assert structure.dtype == dtype
        assert structure.to_dense().dtype == dtype
        built = structure.cost()
        if fitted.bias is not None:
            assert fitted.bias.shape == shape[:1]
            assert fitted.bias.dtype == dtype
            built = built + type(built)(shape[0], shape[0] * dtype.itemsize, 0)
        assert built == cost
    assert torch.equal(weight, before)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16), (1, 6), (6, 1)], ids=str)
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("name", NESTED)
def test_full_rank_is_exact(name: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    weight = weight.to(dtype)
    structure = eckart.fit(weight, name, rank=min(shape), statistics=statistics)
    difference = structure.to_dense().double() - weight.double()
    assert difference.norm() <= ROUNDING[dtype] * weight.double().norm()


@pytest.mark.parametrize("weight_name", hard.weights())
@pytest.mark.parametrize("name", METHODS)
def test_hard_weights(name: str, weight_name: str) -> None:
    weight = hard.weights()[weight_name]
    _, _, statistics = layer(*weight.shape)
    before = weight.clone()
    if weight_name == "graded-entries" and name in DECOMPOSED:
        with pytest.raises(ValueError, match="overflows"):
            METHODS[name].entry(weight, statistics)
        return
    family = METHODS[name].entry(weight, statistics)
    for size in some_sizes(family):
        fitted = family.build(size)
        dense = fitted.structure.to_dense()
        assert dense.shape == weight.shape
        assert dense.dtype == weight.dtype
        assert torch.isfinite(dense).all()
        assert fitted.bias is None or torch.isfinite(fitted.bias).all()
        if name in NESTED and size == min(weight.shape):
            difference = dense.double() - weight.double()
            smallest = torch.finfo(weight.dtype).smallest_normal
            assert difference.norm() <= ROUNDING[weight.dtype] * weight.double().norm() + 100 * smallest
    assert torch.equal(weight, before)


@pytest.mark.parametrize("moment_name", hard.second_moments(4))
@pytest.mark.parametrize("shape", [(8, 12), (12, 8)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_hard_statistics(name: str, shape: tuple[int, int], moment_name: str) -> None:
    weight, _, statistics = layer(*shape)
    left, right = (hard.second_moments(n)[moment_name] for n in shape)
    if moment_name == "huge":
        left = hard.second_moments(shape[0])["general"]
    statistics = replace(
        statistics,
        input_second_moment=right,
        input_mean=torch.zeros(shape[1], dtype=torch.float64),
        input_abs_mean=right.diagonal().sqrt(),
        gradient_second_moment=left,
        fisher_rows=left.diagonal(),
        fisher_columns=right.diagonal(),
    )
    family = METHODS[name].entry(weight, statistics)
    assert torch.isfinite(family.errors).all()
    assert (family.errors.diff() <= 0).all() or hasattr(family, "members")
    for size in some_sizes(family):
        dense = family.build(size).structure.to_dense()
        assert torch.isfinite(dense).all()
        # No cancellation of huge entries: what is cut off is cut off.
        assert dense.norm() <= 1e4 * weight.norm()
        if name in NESTED and size == min(shape):
            torch.testing.assert_close(dense.detach(), weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weight_name", hard.refused())
@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_not_finite_are_refused(name: str, weight_name: str) -> None:
    weight = hard.refused()[weight_name]
    _, _, statistics = layer(*weight.shape)
    with pytest.raises(ValueError, match="NaN or Inf"):
        eckart.fit(weight, name, statistics=statistics, **{METHODS[name].size: 1})


@pytest.mark.parametrize("name", METHODS)
def test_each_missing_or_broken_statistic_is_named(name: str) -> None:
    weight, _, statistics = layer(8, 12)
    for need in METHODS[name].needs:
        if need is Need.INPUT_SAMPLE:
            continue  # only groups of matrices are fitted with it
        with pytest.raises(ValueError, match=need.value):
            METHODS[name].entry(weight, replace(statistics, **{need.value: None}))
        broken = statistics.get(need).clone()
        broken.view(-1)[0] = float("nan")
        with pytest.raises(ValueError, match=need.value):
            METHODS[name].entry(weight, replace(statistics, **{need.value: broken}))


@pytest.mark.parametrize("name", METHODS)
def test_no_statistic_is_read_that_was_not_asked_for(name: str) -> None:
    weight, _, statistics = layer(8, 12)
    asked = {need.value for need in METHODS[name].needs}
    only = replace(statistics, **{need.value: None for need in Need if need.value not in asked})
    one, other = METHODS[name].entry(weight, statistics), METHODS[name].entry(weight, only)
    assert torch.equal(one.errors, other.errors)


@pytest.mark.parametrize("name", METHODS)
def test_fitting_twice_gives_the_same(name: str) -> None:
    weight, _, statistics = layer(12, 20)
    a, b = (METHODS[name].entry(weight.float(), statistics) for _ in range(2))
    assert torch.equal(a.errors, b.errors)
    for size in some_sizes(a):
        one, other = a.build(size).structure.state_dict(), b.build(size).structure.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_flow_through_what_is_built(name: str) -> None:
    weight, x, statistics = layer(12, 20)
    family = METHODS[name].entry(weight, statistics)
    structure = family.build(middle(family)).structure
    x = x[:5].clone().requires_grad_()
    cotangent = hard.normal(5, 12)
    (structure(x) * cotangent).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, cotangent @ structure.to_dense().detach(), rtol=1e-9, atol=1e-9)
    trainable = [p for p in structure.parameters() if p.requires_grad]
    assert trainable
    for p in trainable:
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        assert p.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_what_is_built_is_saved_and_loaded_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    weight, x, statistics = layer(12, 20)
    family = METHODS[name].entry(weight.to(dtype), statistics)
    fitted = family.build(middle(family))
    model = nn.Sequential(StructuredLinear(fitted.structure, fitted.bias))
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", nn.Sequential(nn.Linear(20, 12, bias=fitted.bias is not None)))
    one, other = model.state_dict(), loaded.state_dict()
    assert one.keys() == other.keys()
    assert all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)
    # Copied, because a file aligns tensors to 8 bytes only, and the order of a sum can depend on that.
    assert torch.equal(model(x[:3].to(dtype)), copy.deepcopy(loaded)(x[:3].to(dtype)))


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)], ids=str)
@pytest.mark.parametrize("name", WITH_METRIC)
def test_errors_are_those_of_what_is_built(name: str, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    family, metric = METHODS[name].entry(weight, statistics), metric_of(name, statistics)
    for size, error in zip(family.sizes, family.errors, strict=True):
        measured = metric.error(weight - family.build(size).structure.to_dense())
        torch.testing.assert_close(measured, error, rtol=1e-6, atol=1e-12 * float(metric.error(weight)))


def weighted(weight: Tensor, left: Tensor, right: Tensor, rank: int) -> Tensor:
    """left^-1 (left W right)_r right^-1 by the SVD."""
    u, s, vh = torch.linalg.svd(left @ weight @ right, full_matrices=False)
    return torch.linalg.solve(left, u[:, :rank] * s[:rank] @ vh[:rank]) @ torch.linalg.inv(right)


def square_root(moment: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(moment)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


SHAPES = pytest.mark.parametrize("shape", [(10, 14), (14, 10), (12, 12)], ids=str)


def built(name: str, weight: Tensor, statistics: Statistics, rank: int) -> Tensor:
    return eckart.fit(weight, name, rank=rank, statistics=statistics).to_dense().detach()


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_svd_is_the_truncated_svd(shape: tuple[int, int], rank: int) -> None:
    weight, _, statistics = layer(*shape)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    expected = u[:, :rank] * s[:rank] @ vh[:rank]
    torch.testing.assert_close(built("svd", weight, Statistics(), rank), expected, rtol=1e-9, atol=1e-10)
    family = METHODS.find("svd").entry(weight, statistics)
    tails = torch.stack([s[r:].square().sum() for r in family.sizes])
    torch.testing.assert_close(family.errors, tails, rtol=1e-9, atol=1e-10)


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_fwsvd_is_the_paper_s_formula(shape: tuple[int, int], rank: int) -> None:
    weight, _, statistics = layer(*shape)
    # The paper's W is (in, out): its rows are weighted by the root of their summed Fisher information.
    fisher = statistics.get(Need.FISHER_COLUMNS)
    d = (fisher + 1e-6 * fisher.mean()).sqrt()
    u, s, vh = torch.linalg.svd(d[:, None] * weight.T, full_matrices=False)
    expected = (u[:, :rank] / d[:, None] * s[:rank] @ vh[:rank]).T
    torch.testing.assert_close(built("fwsvd", weight, statistics, rank), expected, rtol=1e-8, atol=1e-9)


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_asvd_is_the_paper_s_formula(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    magnitude = x.abs().mean(0)
    scale = (magnitude + 1e-6 * magnitude.mean()).sqrt().diag()
    expected = weighted(weight, torch.eye(shape[0]).double(), scale, rank)
    torch.testing.assert_close(built("asvd", weight, statistics, rank), expected, rtol=1e-8, atol=1e-9)


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_lord_projects_on_the_principal_outputs(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    outputs = (x - x.mean(0)) @ weight.T
    basis = torch.linalg.eigh(outputs.T @ outputs)[1].flip(1)[:, :rank]
    fitted = METHODS.find("lord").entry(weight, statistics).build(rank)
    dense = fitted.structure.to_dense().detach()
    torch.testing.assert_close(dense, basis @ basis.T @ weight, rtol=1e-8, atol=1e-9)
    assert fitted.bias is not None
    torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_lord_is_never_worse_than_whitening(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    fitted = METHODS.find("lord").entry(weight, statistics).build(rank)
    centred = (x @ weight.T - x @ fitted.structure.to_dense().detach().T - fitted.bias).square().sum(1).mean()
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    errors = project(weight, Metric(right=moment)).errors
    assert centred <= errors[rank] * (1 + 1e-9)
    torch.testing.assert_close(centred, project(weight, metric_of("lord", statistics)).errors[rank], rtol=1e-9, atol=0)
    # SVD-LLM (Wang et al. 2024): C = S S^T by Cholesky, W ~ (W S)_r S^-1.
    s = torch.linalg.cholesky(moment)
    u, sigma, vh = torch.linalg.svd(weight @ s, full_matrices=False)
    whitened = torch.linalg.solve_triangular(s, u[:, :rank] * sigma[:rank] @ vh[:rank], upper=False, left=False)
    measured = (x @ (weight - whitened).T).square().sum(1).mean()
    torch.testing.assert_close(measured, errors[rank], rtol=1e-9, atol=0)
    torch.testing.assert_close(sigma[rank:].square().sum(), errors[rank], rtol=1e-9, atol=1e-13)


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_kfac_is_the_two_sided_optimum(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    out, columns = shape
    metric = metric_of("kfac", statistics)
    assert metric.left is not None
    assert metric.right is not None
    expected = weighted(weight, square_root(metric.left), square_root(metric.right), rank)
    family = METHODS.find("kfac").entry(weight, statistics)
    fitted = family.build(rank)
    dense = fitted.structure.to_dense().detach()
    torch.testing.assert_close(dense, expected, rtol=1e-7, atol=1e-8)
    assert fitted.bias is not None
    torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)
    assert fitted.structure.cost().parameters == rank * (out + columns - rank)
    assert family.costs[list(family.sizes).index(rank)].parameters == rank * (out + columns - rank) + out


def test_a_metric_of_one_s_own_goes_with_svd() -> None:
    weight, _, statistics = layer(10, 14)
    metric = metric_of("kfac", statistics)
    structure = eckart.fit(weight, "svd", rank=4, metric=metric)
    torch.testing.assert_close(metric.error(weight - structure.to_dense()), project(weight, metric).errors[4])
    with pytest.raises(ValueError, match="makes its own"):
        eckart.fit(weight, "lord", rank=4, metric=metric, statistics=statistics)


@pytest.mark.parametrize("rank", [-1, 0, 11])
@pytest.mark.parametrize("name", NESTED)
def test_ranks_outside_the_matrix_are_refused(name: str, rank: int) -> None:
    weight, _, statistics = layer(10, 14)
    with pytest.raises(ValueError, match=f"rank={rank}"):
        eckart.fit(weight, name, rank=rank, statistics=statistics)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'swd'.*svd"):
        eckart.fit(torch.eye(4), "swd", rank=1)
    with pytest.raises(ValueError, match="rank="):
        eckart.fit(torch.eye(4), "svd")
    with pytest.raises(ValueError, match="rank="):
        eckart.fit(torch.eye(4), "svd", rank=1, bits=4)
    with pytest.raises(ValueError, match="bits="):
        eckart.fit(torch.eye(4), "rtn", rank=1)
    with pytest.raises(ValueError, match="bits=7"):
        eckart.fit(torch.eye(4), "rtn", bits=7)
    with pytest.raises(ValueError, match="matrix"):
        eckart.fit(torch.ones(4), "svd", rank=1)


def test_a_rank_that_does_not_pay_is_not_offered() -> None:
    for shape in ((12, 20), (200, 300)):
        weight, _, statistics = layer(*shape)
        for name in NESTED:
            family = METHODS[name].entry(weight, statistics)
            assert all(cost.parameters < weight.numel() for cost in family.costs)
            assert shape == (12, 20) or all(size % 8 == 0 for size in family.sizes)
