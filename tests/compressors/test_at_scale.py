"""Every compressor on matrices and statistics of any size: finite, no worse than nothing, as stated, or refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS, Need, Statistics
from eckart.compressors._at_scale import ORDINARY, AtScale
from eckart.compressors.contract import Family
from eckart.structures import StructuredMatrix, exact_input
from support import hard
from support.cases import each
from support.layers import WITH_METRIC, hard_statistics, layer, metric_of

GRADES = ("float16", "bfloat16", "float32", "float64")


def sized(weight: Tensor) -> tuple[Tensor, int]:
    """A finite matrix as float64 with entries up to one, and the exponent of the power of two that was taken out."""
    exponent = math.frexp(float(weight.double().abs().max()))[1]
    half = exponent // 2
    return weight.double() * 2.0**-half * 2.0 ** (half - exponent), exponent


def assert_sound(name: str, weight: Tensor, statistics: Statistics) -> bool:
    """Checks a family; False where it was refused by name, which squared errors beyond float64 are."""
    try:
        family = METHODS[name].entry(weight, statistics)
    except eckart.Refused as error:
        if "overflows" not in str(error):
            raise
        return False
    errors, sizes, costs, zero = family.errors, list(family.sizes), list(family.costs), family.zero_error
    assert len(errors) == len(sizes) == len(costs)
    stored = [cost.bytes for cost in costs]
    assert stored == sorted(stored)
    assert all(each <= weight.numel() * weight.element_size() for each in stored)
    assert math.isfinite(zero)
    assert torch.isfinite(errors).all()
    assert (errors >= 0).all()
    assert (errors <= zero * (1 + 1e-6)).all()
    for size, cost, stated in zip(sizes, costs, errors.tolist(), strict=True):
        if size not in (sizes[0], sizes[len(sizes) // 2], sizes[-1]):
            continue
        try:
            fitted = family.build(size)
        except eckart.Refused as error:  # a bias that the dtype cannot hold: the outputs of W itself are beyond it
            if weight.dtype != torch.float16 or "beyond the largest number" not in str(error):
                raise
            continue
        dense = exact_input(fitted.structure).to_dense().detach()
        assert dense.dtype == weight.dtype
        assert torch.isfinite(dense).all()
        assert all(torch.isfinite(leaf).all() for leaf in fitted.structure.parameters())
        assert fitted.bias is None or torch.isfinite(fitted.bias).all()
        assert fitted.error == pytest.approx(stated, rel=1e-6, abs=1e-9 * zero)
        bias = 0 if fitted.bias is None else fitted.bias.numel() * fitted.bias.element_size()
        assert fitted.structure.cost().bytes + bias <= cost.bytes
        if name in WITH_METRIC and zero > 0:
            assert_stated(name, weight, dense, statistics, stated, zero)
    return True


def assert_stated(name: str, weight: Tensor, dense: Tensor, s: Statistics, stated: float, zero: float) -> None:
    """The stated error is the one that the paper's metric measures, where that metric is not zero."""
    w, exponent = sized(weight)
    # Where inputs or gradients are all zero, or do not vary, the paper has no metric: the plain one stands in.
    try:
        metric = metric_of(name, s)
    except eckart.Refused:
        return
    if float(metric.error(w)) * 4.0**exponent != pytest.approx(zero, rel=0.1):
        return
    measured = float(metric.error(w - torch.ldexp(dense.double(), torch.tensor(-exponent)))) * 4.0**exponent
    if not math.isfinite(measured):
        return
    eps = torch.finfo(weight.dtype).eps
    # What an approximation loses where its entries vanish is up to a thousandth of its norm.
    assert abs(measured - stated) <= (2e-2 + 8 * eps) * max(measured, stated) + (1e-5 + eps) * zero


@pytest.mark.parametrize("name", METHODS)
@each(4, weight_name=hard.ends())
def test_matrices_at_the_ends_of_their_dtype(name: str, weight_name: str) -> None:
    weight = hard.ends()[weight_name]
    taken = assert_sound(name, weight, layer(*weight.shape)[2])
    huge = weight_name in ("1e200",) or (weight_name.endswith("float64") and "largest" in weight_name)
    assert taken != huge


@pytest.mark.parametrize("name", [name for name, card in METHODS.items() if card.needs])
@each(6, out=[8, 12], where=hard_statistics(1, 1))
def test_statistics_of_any_size(name: str, out: int, where: str) -> None:
    weight = hard.normal(out, 20 - out, seed=33)
    statistics = hard_statistics(20 - out, out)[where]
    assert_sound(name, weight.to(torch.float32 if out == 8 else torch.float16), statistics)


def some(family: Family) -> list[int]:
    sizes = list(family.sizes)
    return [sizes[0], sizes[-1]]


def leaves(structure: StructuredMatrix) -> dict[str, Tensor]:
    return {name: t for name, t in structure.state_dict().items() if not t.is_floating_point()}


@pytest.mark.parametrize("name", METHODS)
@each(powers=[(52, 0, 0), (-52, 60, 0), (0, 60, -70)])
def test_scaling_by_powers_of_two_changes_nothing(name: str, powers: tuple[int, int, int]) -> None:
    (w, _, s), (weight, inputs, gradients) = layer(8, 12), powers
    scaled = replace(
        s,
        input_second_moment=s.get(Need.INPUT_SECOND_MOMENT) * 4.0**inputs,
        input_mean=s.get(Need.INPUT_MEAN) * 2.0**inputs,
        input_abs_mean=s.get(Need.INPUT_ABS_MEAN) * 2.0**inputs,
        input_abs_max=s.get(Need.INPUT_ABS_MAX) * 2.0**inputs,
        input_sample=s.get(Need.INPUT_SAMPLE) * 2.0**inputs,
        gradient_pairs=s.get(Need.GRADIENT_PAIRS) * 2.0 ** torch.tensor([inputs] * 12 + [gradients] * 8),
        gradient_second_moment=s.get(Need.GRADIENT_SECOND_MOMENT) * 4.0**gradients,
        fisher_rows=s.get(Need.FISHER_ROWS) * 2.0 ** (2 * gradients + inputs),
        fisher_columns=s.get(Need.FISHER_COLUMNS) * 2.0 ** (gradients - 2 * inputs),
    )
    entry = METHODS[name].entry
    assert isinstance(entry, AtScale)
    one, other = entry(w, s), entry(w * 2.0**weight, scaled)
    assert list(other.sizes) == list(one.sizes)
    assert list(other.costs) == list(one.costs)
    factor = other.zero_error / one.zero_error
    # The raw method says what the error of this metric is, which it can: nothing here overflows in float64.
    assert factor == pytest.approx(entry.fit(w * 2.0**weight, scaled).zero_error / one.zero_error, rel=1e-6)
    torch.testing.assert_close(other.errors, one.errors * factor, rtol=1e-6, atol=1e-14 * other.zero_error)
    for size in some(one):
        a, b = one.build(size), other.build(size)
        torch.testing.assert_close(
            exact_input(b.structure).to_dense(), exact_input(a.structure).to_dense() * 2.0**weight, rtol=1e-7, atol=0
        )
        codes, found = leaves(a.structure), leaves(b.structure)
        assert codes.keys() == found.keys()
        assert all(torch.equal(codes[key], found[key]) for key in codes)
        if a.bias is not None:
            assert b.bias is not None
            torch.testing.assert_close(b.bias, a.bias * 2.0 ** (weight + inputs), rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_ordinary_is_passed_on_as_it_is(name: str) -> None:
    w, _, s = layer(12, 20)
    entry = METHODS[name].entry
    assert isinstance(entry, AtScale)
    raw = entry.fit(w, s)
    assert type(entry(w, s)) is type(raw)
    assert torch.equal(entry(w, s).errors, raw.errors)
    for size in some(raw):
        one, other = entry(w, s).build(size), raw.build(size)
        a, b = one.structure.state_dict(), other.structure.state_dict()
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_border_of_what_is_ordinary() -> None:
    w, _, s = layer(12, 20)
    for exponent in (ORDINARY.start - 3, ORDINARY.start + 3, ORDINARY.stop - 6, ORDINARY.stop + 3):
        codes = METHODS["rtn"].entry(w * 2.0**exponent, s).build(4).structure.state_dict()["codes"]
        assert torch.equal(codes, METHODS["rtn"].entry(w, s).build(4).structure.state_dict()["codes"])


@pytest.mark.parametrize(
    ("name", "entry"),
    [(name, entry) for name in ("svd", "rtn", "magnitude") for entry in (3.4e38, 3e38, 1e30, 1e-44)]
    + [(name, 1e-44) for name in ("gptq", "kfac", "auto")],
)
def test_a_model_with_such_a_matrix_is_compressed_and_says_what_stays_dense(name: str, entry: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 24))
    before = net[0].weight.data.sign().mul_(entry).clone()
    net[0].weight.data.copy_(before)
    data = [torch.randn(64, 24)]
    result = eckart.compress(net, name, keep=0.8, of="bytes", calibration=data, allocation="greedy")
    dense = net[0].structure.to_dense().detach() if hasattr(net[0], "structure") else net[0].weight.detach()
    assert torch.isfinite(dense).all()
    assert float((dense.double() - before.double()).norm()) <= float(before.double().norm()) * (1 + 1e-6)
    curve = result.plan.curves["0"]
    assert len(curve.sizes) > 1 or "does not hold" in "".join(result.warnings)


def test_a_matrix_that_its_dtype_cannot_approximate_is_named_where_no_budget_can_be_met() -> None:
    net = nn.Sequential(nn.Linear(24, 24))
    net[0].weight.data.sign_().mul_(3.4e38)
    with pytest.raises(eckart.Refused, match=r"0 stays dense: fit failed: torch.float32 does not hold"):
        eckart.compress(net, "svd", keep=0.5, of="linear-parameters")
