"""Rounded inputs: the integers of the definition, no matrix anywhere, and the same once stored."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

import eckart
from eckart.models.modules import StructuredEmbedding, StructuredLinear
from eckart.ops.input_rounding import round_float8, round_symmetric, symmetric_codes
from eckart.structures import (
    Chain,
    Dense,
    Diagonal,
    Float8Input,
    Gated,
    Geometry,
    Quantized,
    RoundedInput,
    Shared,
    Stack,
    StructuredMatrix,
    Sum,
    apply_transposed,
    convolve,
    exact_input,
    from_spec,
    input_bits,
)
from eckart.structures.multiplied import multiply
from support import hard
from support.cases import each

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def rounded_by_hand(token: list[float], bits: int, group: int) -> list[float]:
    """The definition, number by number; Python rounds halves to even."""
    top, found = 2 ** (bits - 1) - 1, []
    for start in range(0, len(token), group):
        run = token[start : start + group]
        scale = max(map(abs, run)) / top
        found += [scale * min(max(round(v / scale), -top), top) if scale else 0.0 for v in run]
    return found


@each(bits=[2, 3, 6, 8], group=[1, 4, 5, 12, 99])
def test_rounding_is_the_definition(bits: int, group: int) -> None:
    x = hard.normal(7, 12, seed=bits)
    x[2, 4:8] = 0
    x[3] = torch.arange(12) - 5.5  # halves
    got = RoundedInput(Dense(torch.eye(12, dtype=torch.float64)), bits=bits, group=group)(x)
    expected = torch.tensor([rounded_by_hand(row, bits, group) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got.detach(), expected, rtol=1e-14, atol=0)


def test_halves_go_to_the_even_integer() -> None:
    codes, scales = symmetric_codes(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -2.5]]), 8, 6)
    assert scales.item() == 1
    assert codes[0, 0].tolist() == [127, 0, 2, 2, 0, -2]


def float8_by_hand(value: float) -> float:
    """The nearest number of E4M3 to one in -448..448, halves to even: 3 bits behind the point, exponents -6 to 8."""
    if value == 0:
        return 0.0
    step = 2.0 ** (max(math.frexp(abs(value))[1] - 1, -6) - 3)
    return round(value / step) * step


def test_floats_of_8_bits_are_the_definition() -> None:
    x = torch.cat([hard.normal(5, 16, seed=1) * 10.0 ** torch.arange(-2, 3, dtype=torch.float64)[:, None]])
    x[1] = torch.logspace(-7, 0, 16, dtype=torch.float64)
    x[2] = 0
    got = Float8Input(Dense(torch.eye(16, dtype=torch.float64)))(x).detach()
    for token, found in zip(x, got, strict=True):
        scale = float((token.abs().max() / 448).bfloat16())
        expected = [
            scale * float8_by_hand(max(-448.0, min(448.0, v / scale))) if scale else 0.0 for v in token.tolist()
        ]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_float8_keeps_what_is_not_finite_apart_and_has_a_spec() -> None:
    x = torch.ones(3, 4)
    x[0, 1], x[1, 2] = math.nan, math.inf
    got = round_float8(x)
    assert got[:2].isnan().all()
    assert torch.equal(got[2], torch.full((4,), 448 * float(torch.tensor(1 / 448).bfloat16())))
    structure = Float8Input(Dense(hard.normal(3, 4).bfloat16()))
    assert from_spec(structure.spec()).spec() == structure.spec()
    assert input_bits(structure) == 8
    assert exact_input(structure) is structure.matrix
    x = hard.normal(2, 4).bfloat16().requires_grad_()
    structure(x).sum().backward()
    assert torch.equal(x.grad, structure.matrix.to_dense().sum(0).expand(2, 4))


@each(dtype=DTYPES)
def test_the_dtype_stays_and_each_token_stands_alone(dtype: torch.dtype) -> None:
    structure = RoundedInput(Dense(hard.normal(5, 9, seed=1).to(dtype)), bits=8)
    x = hard.normal(2, 3, 9, seed=2).to(dtype)
    y = structure(x)
    assert y.dtype == dtype
    assert y.shape == (2, 3, 5)
    error = structure(x[1, 2]).double() - y[1, 2].double()
    assert error.norm() <= 4 * torch.finfo(dtype).eps * y[1, 2].double().norm()  # products of a batch add up otherwise
    assert structure(x[:0]).shape == (0, 3, 5)
    strided = hard.normal(9, 6, seed=3).to(dtype).T
    assert torch.equal(structure.rounded(strided), structure.rounded(strided.contiguous()))
    torch.testing.assert_close(structure(strided), structure(strided.contiguous()))  # products add up in another order


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_handed_on(value: float) -> None:
    x = torch.ones(2, 8)
    x[0, 5] = value
    got = round_symmetric(x, 8, 4)
    assert got[0, 4:].isnan().all()
    assert torch.equal(got[0, :4], torch.ones(4))
    assert torch.equal(got[1], torch.ones(8))


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-30, 1e30, 3e38])
def test_any_scale_that_float32_has(scale: float) -> None:
    x = torch.tensor([[1.0, -0.5, 0.25, 0.0]]) * scale
    got = round_symmetric(x, 8, 4)
    assert torch.isfinite(got).all()
    if scale > 1e-35:
        torch.testing.assert_close(got, x, rtol=1e-2, atol=5e-3 * scale)


def test_the_gradient_is_that_of_the_matrix_on_rounded_inputs() -> None:
    weight, x, g = hard.normal(5, 8, seed=1), hard.normal(3, 8, seed=2).requires_grad_(), hard.normal(3, 5, seed=3)
    structure = RoundedInput(Dense(weight), bits=4)
    (structure(x) * g).sum().backward()
    torch.testing.assert_close(x.grad, g @ weight)
    leaf = next(structure.parameters())
    torch.testing.assert_close(leaf.grad, g.T @ round_symmetric(x.detach(), 4, 8))


def smooth(dtype: torch.dtype = torch.float64, bits: int = 8, group: int | None = None) -> Chain:
    scale = hard.normal(12, seed=5).abs().to(dtype) + 0.5
    weight = hard.normal(6, 12, seed=6).to(dtype)
    return Chain(RoundedInput(Quantized.quantize(weight * scale, 8, 4), bits=bits, group=group), Diagonal(1 / scale))


@each(dtype=DTYPES, group=[None, 4])
def test_saved_and_loaded_bit_for_bit(dtype: torch.dtype, group: int | None) -> None:
    structure = smooth(dtype, 6, group)
    spec = json.loads(json.dumps(structure.spec()))
    assert spec["children"][0]["options"] == {"bits": 6, "group": group or 12}
    loaded = from_spec(spec)
    loaded.load_state_dict(load(save(dict(structure.state_dict()))), assign=True)
    x = hard.normal(3, 12, seed=7).to(dtype)
    assert torch.equal(structure(x), loaded(x))
    assert loaded.cost() == structure.cost() == exact_input(structure).cost()


def others(structure: StructuredMatrix) -> dict[str, StructuredMatrix]:
    out, columns = structure.shape
    eye = Diagonal(torch.ones(out, dtype=torch.float64))
    return {
        "itself": structure,
        "chain": Chain(eye, structure),
        "sum": Sum(Dense(hard.normal(out, columns)), structure),
        "stack": Stack(Dense(hard.normal(2, columns)), structure),
        "shared": Shared(structure),
        "gated": Gated(Dense(hard.normal(3, out)), structure, bias=torch.zeros(out, dtype=torch.float64), active=2),
    }


@pytest.mark.parametrize("name", ["itself", "chain", "sum", "stack", "shared", "gated"])
def test_there_is_no_matrix(name: str) -> None:
    structure = others(smooth())[name]
    assert not structure.linear
    for ask in (
        structure.to_dense,
        lambda: structure.rows(torch.tensor([0])),
        lambda: apply_transposed(structure, hard.normal(2, structure.shape[0])),
        lambda: StructuredLinear(structure).weight.sum(),
        lambda: StructuredEmbedding(structure)(torch.tensor([0])),
    ):
        with pytest.raises(eckart.Refused, match=r"RoundedInput|Gated|Chain|Sum|Stack|Shared"):
            ask()


def test_the_matrix_without_its_rounding() -> None:
    structure = Sum(Chain(smooth(), Dense(hard.normal(12, 4))), Dense(hard.normal(6, 4, seed=1)))
    exact = exact_input(structure)
    assert exact.linear
    assert input_bits(structure) == 8
    assert input_bits(exact) is None
    assert list(exact.state_dict()) != []
    assert {p.data_ptr() for p in exact.parameters()} == {p.data_ptr() for p in structure.parameters()}
    x = 0.01 * hard.normal(3, 4, seed=2)
    torch.testing.assert_close(x @ exact.to_dense().T, structure(x), rtol=3e-2, atol=3e-4)
    plain = Dense(torch.ones(2, 2))
    assert exact_input(plain) is plain


def test_powers_of_two_and_zero() -> None:
    structure, x = smooth(), hard.normal(3, 12, seed=8)
    before = structure(x).detach()
    multiply(structure, 4)
    torch.testing.assert_close(structure(x).detach(), 16 * before, rtol=1e-12, atol=0)
    multiply(structure, None)
    assert not structure(x).any()


@pytest.mark.parametrize("patch", [(1, 1), (2, 2)])
def test_a_patch_of_a_convolution_is_a_token(patch: tuple[int, int]) -> None:
    geometry = Geometry(patch=patch)
    images = hard.normal(2, 3, 4, 4, seed=9)
    columns = 3 * patch[0] * patch[1]
    matrix = Chain(
        RoundedInput(Dense(hard.normal(5, columns, seed=10)), bits=4), Diagonal(hard.normal(columns, seed=11).abs())
    )
    patches = geometry.patches(images).movedim(1, -1)
    torch.testing.assert_close(convolve(matrix, images, geometry), matrix(patches).movedim(-1, 1))
    inner = matrix.operands()[0]
    torch.testing.assert_close(convolve(inner, images, geometry), inner(patches).movedim(-1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "bits must be 2 to 8, got 1"),
        ({"bits": 9}, "bits must be 2 to 8, got 9"),
        ({"bits": True}, "bits must be an integer"),
        ({"group": 0}, "group must be an integer of at least 1, got 0"),
        ({"group": 2.0}, "group must be an integer"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(eckart.Refused, match=message):
        RoundedInput(Dense(torch.eye(3)), **arguments)
    spec = RoundedInput(Dense(torch.eye(3))).spec()
    spec["options"] |= arguments
    with pytest.raises(eckart.Refused, match=message):
        from_spec(spec)


def test_only_structures_are_taken() -> None:
    with pytest.raises(TypeError, match="wrap a tensor in Dense"):
        RoundedInput(torch.eye(3))  # type: ignore[arg-type]


def test_a_whole_module_saves_and_trains(tmp_path: str) -> None:
    net = nn.Sequential(StructuredLinear(smooth(torch.float32)), nn.ReLU(), nn.Linear(6, 2))
    eckart.save(net, f"{tmp_path}/saved")
    again = eckart.load(f"{tmp_path}/saved", nn.Sequential(nn.Linear(12, 6, bias=False), nn.ReLU(), nn.Linear(6, 2)))
    x: Tensor = hard.normal(4, 12, seed=12).float()
    assert torch.equal(net(x), again(x))
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)
