"""Quantized: codes, scales, zero-points and codebooks as one matrix."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.compressors.gptq import gptq_quantize
from eckart.ops.packing import normal_float, pack, row_bytes
from eckart.structures.quantized import Quantized, quantized_cost
from eckart.structures.specs import from_spec
from support.quantizing import correlated, random

ALL_BITS = range(2, 9)

few = settings(deadline=None, max_examples=25)

VARIANTS = {
    "affine": {},
    "symmetric": {"symmetric": True},
    "codebook": {"codebook": normal_float(4)},
}


@pytest.mark.parametrize("bits", ALL_BITS)
def test_cost_counts_codes_scales_and_zero_points(bits: int) -> None:
    quantized = Quantized.quantize(random(6, 80, dtype=torch.bfloat16), bits, 32)
    cost = quantized.cost()
    groups = 3
    assert cost.parameters == cost.macs == 6 * 80
    assert cost.bytes == 6 * (80 * bits // 8 + groups * 2 + min(groups, row_bytes(groups, bits)))
    assert cost.bytes == sum(t.numel() * t.element_size() for t in quantized.state_dict().values())
    assert quantized_cost((6, 80), bits, 32, torch.bfloat16) == cost


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
    levels, symmetric = 16 if variant == "codebook" else 0, variant == "symmetric"
    assert quantized_cost((7, 45), 4, 16, dtype, symmetric=symmetric, levels=levels) == quantized.cost()
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
def test_compiled_products_agree_with_the_dense_matrix(bits: int, group: int, symmetric: bool) -> None:
    quantized = Quantized.quantize(random(32, 128, dtype=torch.bfloat16), bits, group, symmetric=symmetric)
    x = random(2, 3, 128, seed=7, dtype=torch.bfloat16)
    exact = x.double() @ quantized.to_dense().double().T
    with torch.no_grad():
        assert ((quantized(x) - exact).norm() < 8e-3 * exact.norm()).item()
        assert quantized(x).shape == (2, 3, 32)
        assert quantized(x[0, 0]).shape == (32,)
    assert ((quantized(x) - exact).norm() < 8e-3 * exact.norm()).item()


def test_the_compiled_product_sees_new_codes_and_scales() -> None:
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


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("groups", [1, 3, 4, 7, 9])
def test_zero_points_are_stored_in_the_bits_of_codes(bits: int, groups: int) -> None:
    weight = random(5, 8 * groups)
    quantized = Quantized.quantize(weight, bits, 8)
    low, high = (weight.view(5, groups, 8).clamp(*ends) for ends in ((None, 0), (0, None)))
    scales = (high.amax(-1) - low.amin(-1)).double() / (2**bits - 1)
    expected = (-low.amin(-1).double() / scales.float().double()).round().clamp(0, 2**bits - 1)
    zeros = quantized.zeros
    assert zeros is not None
    assert torch.equal(zeros.double(), expected)
    smaller = row_bytes(groups, bits) < groups
    assert ("packed_zeros" in quantized.state_dict()) == smaller
    assert ("zeros" in quantized.state_dict()) != smaller
    again = from_spec(json.loads(json.dumps(quantized.spec())))
    again.load_state_dict(quantized.state_dict(), assign=True)
    assert torch.equal(again.to_dense(), quantized.to_dense())
    assert torch.equal(again.rows(torch.tensor([3, 0])), quantized.to_dense()[[3, 0]])


def test_a_file_with_a_byte_for_each_zero_point_is_read_as_it_is() -> None:
    quantized = Quantized.quantize(random(5, 64), 3, 8)
    assert quantized.zeros is not None
    state = {name: value for name, value in quantized.state_dict().items() if name != "packed_zeros"}
    spec = quantized.spec()
    spec["leaves"] = {"codes": spec["leaves"]["codes"], "scales": spec["leaves"]["scales"], "zeros": ["uint8", 5, 8]}
    old = from_spec(spec)
    old.load_state_dict({**state, "zeros": quantized.zeros}, assign=True)
    assert torch.equal(old.to_dense(), quantized.to_dense())
    assert old.state_dict().keys() == {"codes", "scales", "zeros"}
    assert old.cost().bytes == quantized.cost().bytes + 5 * (8 - 3)


def test_zero_points_that_are_written_to_are_unpacked_again() -> None:
    quantized = Quantized.quantize(random(5, 64), 4, 8)
    assert quantized.zeros is not None
    other = Quantized.quantize(random(5, 64, seed=1) + 1, 4, 8)
    quantized.load_state_dict(other.state_dict())
    assert torch.equal(quantized.to_dense(), other.to_dense())


def test_packed_zero_points_that_do_not_fit_are_refused() -> None:
    good = Quantized.quantize(random(4, 64), 4, 8)
    fields: dict[str, Any] = {"bits": 4, "group": 8, "columns": 64}
    packed = good.state_dict()["packed_zeros"]
    for bad in (packed[:, :3], packed.int(), packed[:2]):
        with pytest.raises(ValueError, match="packed zeros"):
            Quantized(good.codes, good.scales, packed_zeros=bad, **fields)
    with pytest.raises(ValueError, match="packed or not"):
        Quantized(good.codes, good.scales, good.zeros, packed_zeros=packed, **fields)
    with pytest.raises(ValueError, match="zeros or a codebook"):
        Quantized(good.codes, good.scales, None, torch.ones(3), packed, **fields)
