"""Every registered compressor against one suite."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS, Need, StructuredLinear
from eckart.compressors._low_rank import LowRank
from eckart.compressors.contract import Family
from eckart.structures import exact_input
from support import hard
from support.cases import each
from support.layers import NESTED, WITH_METRIC, layer, metric_of

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def some_sizes(family: Family) -> list[int]:
    """The smallest, a middle and the largest size; for nested optima the matrix itself too."""
    sizes = list(family.sizes)
    some = [sizes[0], sizes[len(sizes) // 2], sizes[-1]] if sizes else []
    return list(dict.fromkeys([*some, min(family.weight.shape)] if isinstance(family, LowRank) else some))


def rows_of(moment: Tensor) -> Tensor:
    """Inputs (in, in) of that second moment."""
    values, vectors = torch.linalg.eigh(moment)
    return (values.clamp_min(0) * len(moment)).sqrt()[:, None] * vectors.T


def middle(family: Family) -> int:
    return list(family.sizes)[len(family.sizes) // 2]


@pytest.mark.parametrize("name", METHODS)
@each(4, dtype=ROUNDING, shape=[(12, 24), (24, 16), (16, 16)])
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
        assert exact_input(structure).to_dense().dtype == dtype
        built = structure.cost()
        if fitted.bias is not None:
            assert fitted.bias.shape == shape[:1]
            assert fitted.bias.dtype == dtype
            built = built + type(built)(shape[0], shape[0] * dtype.itemsize, 0)
        assert built == cost
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", NESTED)
@each(dtype=ROUNDING, shape=[(12, 20), (20, 12), (16, 16), (1, 6), (6, 1)])
def test_full_rank_is_exact(name: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    weight = weight.to(dtype)
    structure = eckart.fit(weight, name, rank=min(shape), statistics=statistics)
    difference = exact_input(structure).to_dense().double() - weight.double()
    assert difference.norm() <= ROUNDING[dtype] * weight.double().norm()


@pytest.mark.parametrize("name", METHODS)
@each(4, weight_name=hard.weights())
def test_hard_weights(name: str, weight_name: str) -> None:
    weight = hard.weights()[weight_name]
    _, _, statistics = layer(*weight.shape)
    before = weight.clone()
    if weight_name == "graded-entries":
        with pytest.raises(ValueError, match="the squared error overflows float64: entries of the weight are up to 1e"):
            METHODS[name].entry(weight, statistics)
        return
    family = METHODS[name].entry(weight, statistics)
    for size in some_sizes(family):
        fitted = family.build(size)
        dense = exact_input(fitted.structure).to_dense()
        assert dense.shape == weight.shape
        assert dense.dtype == weight.dtype
        assert torch.isfinite(dense).all()
        assert fitted.bias is None or torch.isfinite(fitted.bias).all()
        if name in NESTED and size == min(weight.shape):
            difference = dense.double() - weight.double()
            smallest = torch.finfo(weight.dtype).smallest_normal
            assert difference.norm() <= ROUNDING[weight.dtype] * weight.double().norm() + 100 * smallest
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", [name for name, card in METHODS.items() if card.needs])
@each(6, moment_name=hard.second_moments(4), shape=[(8, 12), (12, 8)])
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
        input_abs_max=3 * right.diagonal().sqrt(),
        input_sample=rows_of(right),
        gradient_pairs=torch.cat([rows_of(side)[-8:] for side in (right, left)], 1),
        gradient_second_moment=left,
        fisher_rows=left.diagonal(),
        fisher_columns=right.diagonal(),
    )
    family = METHODS[name].entry(weight, statistics)
    assert torch.isfinite(family.errors).all()
    assert (family.errors.diff() <= 0).all() or hasattr(family, "members")
    for size in some_sizes(family):
        dense = exact_input(family.build(size).structure).to_dense()
        assert torch.isfinite(dense).all()
        # No cancellation of huge entries: what is cut off is cut off.
        assert dense.norm() <= 1e4 * weight.norm()
        if name in NESTED and size == min(shape):
            torch.testing.assert_close(dense.detach(), weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@each(weight_name=hard.refused())
def test_weights_that_are_not_finite_are_refused(name: str, weight_name: str) -> None:
    weight = hard.refused()[weight_name]
    _, _, statistics = layer(*weight.shape)
    with pytest.raises(ValueError, match="NaN or Inf"):
        eckart.fit(weight, name, statistics=statistics, **{METHODS[name].size: 1})


@pytest.mark.parametrize("name", METHODS)
def test_each_missing_or_broken_statistic_is_named(name: str) -> None:
    weight, _, statistics = layer(8, 12)
    for need in METHODS[name].needs:
        if need is Need.INPUT_SAMPLE and METHODS[name].together:
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
    torch.testing.assert_close(x.grad, cotangent @ exact_input(structure).to_dense().detach(), rtol=1e-9, atol=1e-9)
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
        measured = metric.error(weight - exact_input(family.build(size).structure).to_dense())
        torch.testing.assert_close(measured, error, rtol=1e-6, atol=1e-12 * float(metric.error(weight)))


@pytest.mark.parametrize("rank", [-1, 0, 11])
@pytest.mark.parametrize("name", NESTED)
def test_ranks_outside_the_matrix_are_refused(name: str, rank: int) -> None:
    weight, _, statistics = layer(10, 14)
    with pytest.raises(ValueError, match=f"rank={rank}"):
        eckart.fit(weight, name, rank=rank, statistics=statistics)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown compressor 'swd'; did you mean 'svd'\?"):
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
