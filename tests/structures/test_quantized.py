"""Packing, the Quantized structure, and its two methods."""

from __future__ import annotations

import json
from math import ceil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.compressors._one_by_one import BITS
from eckart.compressors.gptq import gptq, gptq_quantize
from eckart.compressors.rtn import round_to_nearest
from eckart.linalg.optimal_brain_surgery import inverse_factor
from eckart.metrics import Metric
from eckart.ops.packing import encode, grid, normal_float, pack, row_bytes, searched_grid, unpack
from eckart.statistics.needs import Statistics
from eckart.structures.base import from_spec
from eckart.structures.quantized import Quantized

ALL_BITS = range(2, 9)
few = settings(deadline=None, max_examples=25)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def correlated(n: int, samples: int = 400, seed: int = 1) -> Tensor:
    """E[x x^T] of inputs with a decaying spectrum and a few that are large."""
    x = random(samples, n, seed=seed, dtype=torch.float64) @ random(n, n, seed=seed + 1, dtype=torch.float64)
    x = x * torch.logspace(0, -2, n, dtype=torch.float64)[torch.randperm(n, generator=torch.Generator().manual_seed(2))]
    return x.T @ x / samples


VARIANTS = {
    "affine": {},
    "symmetric": {"symmetric": True},
    "codebook": {"codebook": normal_float(4)},
}


@few
@given(bits=st.sampled_from(ALL_BITS), rows=st.integers(1, 4), columns=st.integers(1, 70), seed=st.integers(0, 99))
def test_packing_round_trip(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8, generator=generator)
    packed = pack(codes, bits)
    assert packed.shape == (rows, row_bytes(columns, bits))
    assert torch.equal(unpack(packed, bits, columns), codes)


@few
@given(bits=st.sampled_from(ALL_BITS), columns=st.integers(1, 300))
def test_packed_bytes_are_those_of_theory(bits: int, columns: int) -> None:
    theory = ceil(columns * bits / 8)
    padding = row_bytes(columns, bits) - theory
    assert 0 <= padding < max(bits, 2)
    if bits in (2, 4, 8) or columns % 8 == 0:
        assert padding == 0


@pytest.mark.parametrize("bits", ALL_BITS)
def test_cost_counts_codes_scales_and_zero_points(bits: int) -> None:
    quantized = Quantized.quantize(random(6, 80, dtype=torch.bfloat16), bits, 32)
    cost = quantized.cost()
    groups = 3
    assert cost.parameters == cost.macs == 6 * 80
    assert cost.bytes == 6 * (80 * bits // 8 + groups * (2 + 1))
    assert cost.bytes == sum(t.numel() * t.element_size() for t in quantized.state_dict().values())
    assert Quantized.empty((6, 80), bits, 32, torch.bfloat16).cost() == cost


@few
@given(
    bits=st.sampled_from(ALL_BITS),
    columns=st.integers(1, 40),
    group=st.sampled_from((1, 8, 16, 1000)),
    symmetric=st.booleans(),
    scale=st.sampled_from((1e-20, 1.0, 1e20)),
)
def test_rounding_error_is_at_most_half_a_step(
    bits: int, columns: int, group: int, symmetric: bool, scale: float
) -> None:
    weight = random(3, columns, seed=columns) * scale
    quantized = Quantized.quantize(weight, bits, group, symmetric=symmetric)
    step = quantized.scales.detach().repeat_interleave(quantized.group, 1)[:, :columns]
    assert ((weight - quantized.to_dense()).abs() <= step * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_forward_dense_and_rows_are_one_matrix(variant: str, dtype: torch.dtype) -> None:
    quantized = Quantized.quantize(random(7, 45, dtype=dtype), 4, 16, **VARIANTS[variant])
    dense = quantized.to_dense()
    assert dense.dtype == quantized.dtype == dtype
    x = random(2, 3, 45, seed=3, dtype=dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(quantized(x), x @ dense.T, rtol=tolerance, atol=tolerance)
    index = torch.tensor([[6, 0], [3, 3]])
    assert torch.equal(quantized.rows(index), dense[index])


def test_dense_is_the_definition_entry_by_entry() -> None:
    affine = Quantized.quantize(random(3, 10), 3, 4)
    codes, zeros = affine.unpacked().tolist(), affine.zeros.tolist()
    scales = affine.scales.tolist()
    expected = [[scales[i][j // 4] * (codes[i][j] - zeros[i][j // 4]) for j in range(10)] for i in range(3)]
    torch.testing.assert_close(affine.to_dense(), torch.tensor(expected))


def test_codebook_picks_the_nearest_level() -> None:
    weight, book = random(4, 32), normal_float(4).float()
    quantized = Quantized.quantize(weight, 4, 16, codebook=book)
    points = quantized.scales.detach()[:, :, None, None] * book
    distance = (weight.view(4, 2, 16, 1) - points).abs()
    torch.testing.assert_close((weight - quantized.to_dense()).abs().view(4, 2, 16), distance.amin(-1))


def test_normal_float_is_the_published_code() -> None:
    levels = normal_float(4)
    assert levels[0] == -1
    assert levels[7] == 0
    assert levels[15] == 1
    # Dettmers 2023, appendix E.
    published = torch.tensor([-0.6961928, -0.52507305, -0.0910500, 0.0795803, 0.7229568], dtype=torch.float64)
    torch.testing.assert_close(levels[[1, 2, 6, 8, 14]], published, atol=1e-6, rtol=0)
    for bits in ALL_BITS:
        assert (normal_float(bits).diff() > 0).all()
        assert len(normal_float(bits)) == 1 << bits


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_quantizing_twice_changes_no_code(variant: str, bits: int) -> None:
    options = {"codebook": normal_float(bits)} if variant == "codebook" else VARIANTS[variant]
    once = Quantized.quantize(random(5, 50), bits, 16, **options)
    twice = Quantized.quantize(once.to_dense(), bits, 16, **options)
    assert torch.equal(once.codes, twice.codes)
    torch.testing.assert_close(once.to_dense(), twice.to_dense(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_weights_on_a_grid_are_kept_exactly(bits: int) -> None:
    top, generator = (1 << bits) - 1, torch.Generator().manual_seed(bits)
    codes = torch.randint(0, top + 1, (5, 48), dtype=torch.uint8, generator=generator)
    codes[:, ::16], codes[:, 1::16] = 0, top  # every group uses its whole grid
    zeros = torch.randint(0, top + 1, (5, 3), dtype=torch.uint8, generator=generator)
    scales = torch.randint(1, 100, (5, 3), generator=generator) / 1024  # few digits: products with codes are exact
    weight = Quantized(pack(codes, bits), scales, zeros, bits=bits, group=16, columns=48).to_dense().detach()
    assert torch.equal(Quantized.quantize(weight, bits, 16).to_dense(), weight)
    assert torch.equal(gptq_quantize(weight, correlated(48), bits, 16).to_dense(), weight)


def test_searched_grid_is_never_worse() -> None:
    values, weights = random(20, 64).pow(3), random(64).square()
    for bits in (2, 3, 4, 8):

        def error(chosen: tuple[Tensor, Tensor | None], bits: int = bits, power: float = 2.4) -> Tensor:
            scales, zeros = chosen[0][..., None], chosen[1][..., None].float()
            codes = (values / scales + zeros).round().clamp(0, 2**bits - 1)
            return (((codes - zeros) * scales - values).abs().pow(power) * weights).sum(-1)

        plain = grid(values, bits, values.dtype)
        searched = searched_grid(values, bits, values.dtype, importance=weights)
        assert (error(searched) <= error(plain) * (1 + 1e-5)).all()
        assert error(searched).sum() <= error(searched_grid(values, bits, values.dtype)).sum()
        assert bits > 3 or error(searched, power=2.0).sum() < 0.95 * error(plain, power=2.0).sum()


def test_gptq_chooses_grids_for_what_an_error_costs() -> None:
    # Inputs 0 to 7 hardly ever differ from zero: what is large there must not widen the grid of the others.
    weight, moment = random(30, 32), torch.diag(torch.tensor([1e-6] * 8 + [1.0] * 24))
    weight[:, :8] *= 2
    metric = Metric(right=moment)
    found = metric.error(weight - gptq_quantize(weight, moment, 3, 32, damping=1e-8).to_dense())
    rounded = metric.error(weight - Quantized.quantize(weight, 3, 32).to_dense())
    assert found < 0.6 * rounded


@pytest.mark.parametrize("variant", VARIANTS)
def test_spec_meta_and_state_dict_round_trip(variant: str) -> None:
    quantized = Quantized.quantize(random(5, 45, dtype=torch.bfloat16), 4, 16, **VARIANTS[variant])
    spec = json.loads(json.dumps(quantized.spec()))
    loaded = from_spec(spec)
    assert isinstance(loaded, Quantized)
    assert loaded.codes.device.type == "meta"
    assert loaded.cost() == quantized.cost()
    loaded.load_state_dict(quantized.state_dict(), assign=True)
    loaded.check_values()
    assert torch.equal(loaded.to_dense(), quantized.to_dense())
    assert loaded.spec() == quantized.spec()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_scales_codebook_and_input(variant: str) -> None:
    quantized = Quantized.quantize(random(3, 10, dtype=torch.float64), 4, 4, **VARIANTS[variant])
    x = random(2, 10, seed=5, dtype=torch.float64).requires_grad_()
    leaves = dict(quantized.named_parameters())
    assert set(leaves) == ({"scales", "codebook"} if variant == "codebook" else {"scales"})

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(quantized, dict(zip(leaves, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *leaves.values()))


@pytest.mark.parametrize(("bits", "group", "symmetric"), [(4, 32, True), (4, 64, False), (8, 128, True)])
def test_kernels_agree_with_the_dense_matrix(bits: int, group: int, symmetric: bool) -> None:
    quantized = Quantized.quantize(random(32, 128, dtype=torch.bfloat16), bits, group, symmetric=symmetric)
    x = random(2, 3, 128, seed=7, dtype=torch.bfloat16)
    exact = x.double() @ quantized.to_dense().double().T
    with torch.no_grad():
        assert quantized._kernel_applies(x)
        assert ((quantized(x) - exact).norm() < 8e-3 * exact.norm()).item()
        assert quantized(x).shape == (2, 3, 32)
        assert quantized(x[0, 0]).shape == (32,)
        assert not quantized._kernel_applies(x.float())
        assert not quantized._kernel_applies(x[..., :64])
    assert not quantized._kernel_applies(x)
    assert ((quantized(x) - exact).norm() < 8e-3 * exact.norm()).item()
    assert not any("repacked" in name for name in quantized.state_dict())


def test_the_kernel_sees_new_codes_and_scales() -> None:
    x = random(4, 64, seed=8, dtype=torch.bfloat16)
    one, other = (Quantized.quantize(random(16, 64, seed=s, dtype=torch.bfloat16), 4, 32) for s in (1, 2))
    with torch.no_grad():
        before, expected = one(x), other(x)
        assert not torch.equal(before, expected)
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), expected)
        one.scales.mul_(2)
        torch.testing.assert_close(one(x), 2 * expected)
        one.load_state_dict(other.state_dict(), assign=True)
        assert torch.equal(one(x), expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [16, 64])
def test_gptq_is_no_worse_than_rounding(bits: int, group: int) -> None:
    weight, moment = random(24, 64), correlated(64)
    metric = Metric(right=moment)
    rounded = metric.error(weight - Quantized.quantize(weight, bits, group).to_dense())
    assert metric.error(weight - gptq_quantize(weight, moment, bits, group).to_dense()) < 0.7 * rounded


def test_gptq_is_optimal_brain_surgery_with_explicit_inverses() -> None:
    weight, moment, group, bits = random(6, 150, dtype=torch.float64), correlated(150), 16, 3
    quantized = gptq_quantize(weight, moment, bits, group)
    inverse = torch.linalg.inv(moment + 1e-2 * moment.diagonal().mean() * torch.eye(150, dtype=torch.float64))
    rest, rounded = weight.clone(), torch.zeros_like(weight)
    for j in sorted(range(150), key=lambda j: -float(moment[j, j])):
        scale, zero = quantized.scales[:, j // group].detach(), quantized.zeros[:, j // group]
        code = torch.clamp(torch.round(rest[:, j] / scale + zero), 0, 2**bits - 1)
        rounded[:, j] = scale * (code - zero)
        rest -= torch.outer(rest[:, j] - rounded[:, j], inverse[j] / inverse[j, j])
        inverse -= torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    torch.testing.assert_close(quantized.to_dense().detach(), rounded)


def test_inverse_factor() -> None:
    moment = correlated(30)
    factor = inverse_factor(moment, 0.1)
    damped = moment + 0.1 * moment.diagonal().mean() * torch.eye(30, dtype=torch.float64)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(30, dtype=torch.float64), atol=1e-9, rtol=0)


def test_uncorrelated_inputs_need_no_surgery() -> None:
    weight = random(5, 40)
    zero, identity = torch.zeros(40, 40), torch.eye(40)
    assert torch.equal(gptq_quantize(weight, zero, 4, 16).to_dense(), gptq_quantize(weight, identity, 4, 16).to_dense())


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


def test_a_family_states_the_error_of_what_it_builds() -> None:
    weight, moment = random(16, 64), correlated(64)
    family = gptq(weight, Statistics(400, input_second_moment=moment))
    alone = gptq_quantize(weight, moment, 4)
    assert torch.equal(family.build(4).structure.to_dense(), alone.to_dense())
    for size, error, cost in zip(family.sizes, family.errors, family.costs, strict=True):
        built = family.build(size).structure
        assert built.cost() == cost
        torch.testing.assert_close(Metric(right=moment).error(weight - built.to_dense()), error)


def test_weights_on_a_grid_of_four_bits_keep_it_at_five() -> None:
    weight = Quantized.quantize(random(8, 128), 4, 64).to_dense().detach()
    family = round_to_nearest(weight, Statistics())
    assert float(family.errors[2]) == pytest.approx(float(family.errors[3]), abs=1e-9)
    built = family.build(5).structure
    assert isinstance(built, Quantized)
    assert built.bits == 4
    with pytest.raises(ValueError, match="size 7"):
        family.build(7)


@pytest.mark.parametrize("method", [round_to_nearest, gptq])
def test_a_weight_with_nan_is_refused(method) -> None:
    weight = random(4, 8)
    weight[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"weight of shape \(4, 8\) has 1 NaN"):
        method(weight, Statistics(1, input_second_moment=torch.eye(8)))


def test_arguments_that_do_not_fit_are_refused() -> None:
    weight = random(4, 8)
    with pytest.raises(ValueError, match="does not fit"):
        gptq_quantize(weight, torch.eye(9), 4)
    with pytest.raises(ValueError, match="not positive semi-definite"):
        gptq_quantize(weight, -torch.eye(8) + 2 * torch.ones(8, 8), 4)
    with pytest.raises(ValueError, match="2 to 8"):
        Quantized.quantize(weight, 9, 4)
    with pytest.raises(ValueError, match="group must be"):
        Quantized.quantize(weight, 4, 0)
    with pytest.raises(ValueError, match="ascends"):
        Quantized.quantize(weight, 2, 4, codebook=torch.tensor([0.0, 1.0, 2.0]))
    good = Quantized.quantize(weight, 4, 4)
    fields = {"bits": 4, "group": 4, "columns": 8}
    with pytest.raises(ValueError, match="uint8 codes of shape"):
        Quantized(good.codes[:, :3], good.scales, good.zeros, **fields)
    with pytest.raises(ValueError, match="scales of shape"):
        Quantized(good.codes, good.scales[:, :1], good.zeros, **fields)
    with pytest.raises(ValueError, match="not both"):
        Quantized(good.codes, good.scales, good.zeros, torch.ones(3), **fields)


def test_impossible_values_are_found() -> None:
    good = Quantized.quantize(random(4, 8), 3, 4)
    bad = Quantized(good.codes, good.scales, torch.full_like(good.zeros, 8), bits=3, group=4, columns=8)
    with pytest.raises(ValueError, match="zero-point 8"):
        bad.check_values()
    book = torch.tensor([-1.0, 0.0, 1.0])
    bad = Quantized(
        pack(torch.full((4, 8), 3, dtype=torch.uint8), 3), good.scales, None, book, bits=3, group=4, columns=8
    )
    with pytest.raises(ValueError, match="code 3"):
        bad.check_values()


def test_half_precision_copies_work() -> None:
    quantized = Quantized.quantize(random(4, 40), 4, 16)
    half = Quantized.quantize(random(4, 40), 4, 16).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.codes.dtype == half.zeros.dtype == torch.uint8
    x = random(3, 40, seed=2)
    torch.testing.assert_close(half(x), quantized(x), rtol=3e-2, atol=3e-2)
    assert F.mse_loss(half(x), quantized(x)) > 0


@pytest.mark.parametrize("levels", [2, 3, 4, 7, 16, 100, 256])
def test_codes_of_a_codebook_are_those_of_bucketize(levels: int) -> None:
    book = random(levels).sort().values
    middles = (book[1:] + book[:-1]) / 2
    values = torch.cat([2 * random(500, seed=1), middles, book, torch.tensor([-torch.inf, torch.inf])])
    codes = encode(values, torch.ones(()), None, 8, book)
    assert torch.equal(codes, torch.bucketize(values, middles).to(torch.uint8))
