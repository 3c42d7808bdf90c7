"""Products of odd integers of p and q bits are the integers that they are, at every level of the processor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.ops.input_rounding import round_odd
from eckart.ops.native.binary_coded import BIT_PLANES
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.structures import BinaryCoded, BipolarInput
from support.guarded import guarded

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def odd(generator: torch.Generator, bits: int, *shape: int) -> Tensor:
    """Odd integers of that many signs, int64; the largest is among them."""
    found = 2 * torch.randint(0, 1 << bits, shape, generator=generator) - (1 << bits) + 1
    found.view(-1)[0] = (1 << bits) - 1
    return found


def integers(weight: Tensor, bits: int, group: int) -> BinaryCoded:
    """Odd integers W (out, in) as planes, with scales of one."""
    codes = (weight + (1 << bits) - 1) // 2
    signs = torch.stack([codes >> p & 1 for p in range(bits)]).bool()
    scales = torch.tensor([1.0 * (1 << p) for p in range(bits)])
    groups = -(-weight.shape[1] // group)
    return BinaryCoded.from_planes(signs, scales.expand(len(weight), groups, bits), group=group).requires_grad_(False)


@pytest.mark.parametrize("q", range(1, 9))
@pytest.mark.parametrize("p", range(1, 9))
def test_products_of_odd_integers_are_exact(p: int, q: int) -> None:
    draw = torch.Generator().manual_seed(10 * p + q)
    for rows, columns, group in ((37, 300, 48), (16, 64, 64)):
        weight, x = odd(draw, p, rows, columns), odd(draw, q, columns)
        matrix = BipolarInput(integers(weight, p, group), bits=q)
        wanted = (weight @ x).tolist()
        planes = sum(  # the paper's equation
            (columns - 2 * ((weight + (1 << p) - 1 >> i + 1 ^ x + (1 << q) - 1 >> j + 1) & 1).sum(1)) << i + j
            for i in range(p)
            for j in range(q)
        )
        assert isinstance(planes, Tensor)
        assert planes.tolist() == wanted
        for level in [*levels(), "off"]:
            with capped(level):
                assert matrix(x.float()).tolist() == wanted
                assert matrix(x.float().expand(3, columns))[2].tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 50),
    columns=st.sampled_from([1, 3, 8, 9, 16, 17, 31, 32, 33, 64, 100, 577]),
    pair=st.sampled_from([(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]),
    group=st.sampled_from([16, 32, 48, 64, 10000]),
    offsets=st.booleans(),
    dtype=st.sampled_from(FLOATS),
)
@example(rows=33, columns=4100, pair=(3, 1), group=48, offsets=True, dtype=torch.float32)
@example(rows=17, columns=8200, pair=(1, 4), group=8200, offsets=True, dtype=torch.bfloat16)
def test_is_the_product_of_the_rounded_input(
    rows: int, columns: int, pair: tuple[int, int], group: int, offsets: bool, dtype: torch.dtype
) -> None:
    planes, bits = pair
    group = min(group, columns)
    groups = -(-columns // group)
    z = torch.randn(rows, groups).to(dtype) if offsets else None
    matrix = BinaryCoded.from_planes(
        torch.rand(planes, rows, columns) > 0.5, torch.randn(rows, groups, planes).to(dtype), z, group=group
    ).requires_grad_(False)
    x = guarded(torch.randn(1, columns))
    rounded = round_odd(x, bits).double()
    ends = [None if leaf is None else guarded(leaf) for leaf in matrix.in_memory()]
    double = matrix.float().double()
    wanted = rounded @ double.to_dense().T
    each = double.scales.abs().amax() * planes + (0 if double.offsets is None else double.offsets.abs().amax())
    bound = 4 * torch.finfo(torch.float32).eps * columns**0.5 * each * rounded.abs().sum()
    for level in levels():
        with capped(level):
            found = Product(BIT_PLANES)(x, ends, (group, columns, planes, bits))
        assert found is not None
        assert ((found - wanted).abs() <= bound + 1e-30).all()


def test_rows_depend_on_neither_the_level_nor_threads() -> None:
    draw, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    matrix, x, found = integers(odd(draw, 2, 1000, 200), 2, 64), torch.randn(1, 200, generator=draw), []
    for level in levels()[1:]:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with capped(level):
                found.append(Product(BIT_PLANES)(x, matrix.in_memory(), (64, 200, 2, 2)))
    torch.set_num_threads(before)
    for y in found:
        assert y is not None
        assert y.tolist() == found[0].tolist()


def test_what_it_is_not_for() -> None:
    matrix = integers(odd(torch.Generator(), 2, 20, 64), 2, 32)
    leaves, x = matrix.in_memory(), torch.randn(1, 64)
    assert Product(BIT_PLANES)(x, leaves, (32, 64, 2, 2)) is not None
    for options in ((32, 64, 2, 3), (32, 64, 2, 0), (32, 64, 5, 1), (24, 64, 2, 2)):
        assert Product(BIT_PLANES)(x, leaves, options) is None
    assert Product(BIT_PLANES)(torch.randn(2, 64), leaves, (32, 64, 2, 2)) is None


def test_the_op_and_its_reference() -> None:
    matrix, x = integers(odd(torch.Generator(), 2, 20, 64), 2, 32), torch.randn(1, 64)
    arguments = (x, list(matrix.in_memory()), "bit_planes", [32, 64, 2, 2])
    torch.library.opcheck(torch.ops.eckart.multiplied.default, arguments)
    with capped("off"):
        y = torch.ops.eckart.multiplied(*arguments)
    torch.testing.assert_close(y, torch.ops.eckart.multiplied(*arguments))
