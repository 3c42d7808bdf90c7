"""Inputs as odd integers: the definition, hard inputs, gradients, and the same once stored."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load, save

import eckart
from eckart.ops.native.library import capped, levels
from eckart.structures import BinaryCoded, BipolarInput, Dense, exact_input, from_spec, input_bits
from support import hard
from support.cases import each

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def rounded_by_hand(token: list[float], bits: int) -> list[float]:
    top = 2**bits - 1
    unit = max(map(abs, token)) / top
    if not unit:
        return [0.0] * len(token)
    k = [min(max(2 * math.floor(v / unit / 2) + 1, -top), top) for v in token]
    t = math.fsum(v * i for v, i in zip(token, k, strict=True)) / sum(i * i for i in k)
    return [t * i for i in k]


def planes(dtype: torch.dtype = torch.float32) -> BinaryCoded:
    draw = torch.Generator().manual_seed(3)
    signs = torch.rand(2, 21, 48, generator=draw) < 0.5
    return BinaryCoded.from_planes(signs, torch.rand(21, 3, 2, generator=draw).to(dtype), group=16)


@each(bits=[1, 2, 3, 5, 8])
def test_rounding_is_the_definition(bits: int) -> None:
    x = hard.normal(5, 12, seed=bits)
    x[2] = 0
    x[3] = torch.arange(12) - 5.5
    got = BipolarInput(Dense(torch.eye(12, dtype=torch.float64)), bits=bits)(x)
    expected = torch.tensor([rounded_by_hand(row, bits) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got.detach(), expected, rtol=1e-13, atol=0)


@each(bits=[1, 2, 3], dtype=DTYPES)
def test_hard_inputs_alone_and_among_others(bits: int, dtype: torch.dtype) -> None:
    structure = BipolarInput(planes(dtype if dtype != torch.float64 else torch.float32), bits=bits)
    x = hard.normal(5, 48, seed=2).to(dtype)
    x[0] = 0
    x[1] *= torch.finfo(dtype).smallest_normal
    x[2] = x[2] / x[2].abs().max() * (torch.finfo(dtype).max / 64)
    x[3, 7] = torch.nan
    x[4, 7] = -torch.inf
    with torch.no_grad():
        together = structure(x)
        alone = torch.cat([structure(row[None]) for row in x])
    assert not together[0].any()
    assert together[3:].isnan().all()
    assert alone[3:].isnan().all()
    assert together[:3].isfinite().all()
    tolerance = 16 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-6
    size = 48 * float(structure.matrix.to_dense().detach().abs().max()) * x[:3].double().abs().amax(1, keepdim=True)
    assert ((together[:3].double() - alone[:3].double()).abs() <= tolerance * size).all()


def test_more_bits_lose_less() -> None:
    x, weight = hard.normal(64, 96, seed=4), hard.normal(8, 96, seed=5)
    lost = [float((BipolarInput(Dense(weight), bits=b)(x) - x @ weight.T).detach().norm()) for b in range(1, 9)]
    assert all(more < fewer for fewer, more in pairwise(lost))
    assert lost[-1] < 0.02 * lost[0]


def test_the_gradient_is_that_of_the_matrix_on_rounded_inputs() -> None:
    weight = hard.normal(4, 6, seed=1).requires_grad_()
    structure = BipolarInput(Dense(weight), bits=2)
    x = hard.normal(3, 6, seed=2).requires_grad_()
    structure(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(3, 6))
    assert isinstance(structure.matrix, Dense)
    assert structure.matrix.weight.grad is not None


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_no_matrix_and_the_same_once_stored(bits: int) -> None:
    structure = BipolarInput(planes(), bits=bits)
    with pytest.raises(eckart.Refused):
        structure.to_dense()
    assert input_bits(structure) == bits
    assert exact_input(structure) is structure.matrix
    x = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    again = from_spec(json.loads(json.dumps(structure.spec())))
    again.load_state_dict(load(save(structure.state_dict())), assign=True)
    with torch.no_grad():
        for level in [*levels(), "off"]:
            with capped(level):
                assert again(x).tolist() == structure(x).tolist()


@pytest.mark.parametrize("bits", [0, 9, 2.5, "8"])
def test_impossible_bits_are_refused(bits: object) -> None:
    with pytest.raises(eckart.Refused, match="bits must be"):
        BipolarInput(Dense(torch.eye(3)), bits=bits)  # type: ignore[arg-type]
