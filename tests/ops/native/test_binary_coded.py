"""The product of planes of signs in compiled code is that of PyTorch, at every level of the processor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.ops.native.binary_coded import BINARY_CODED
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.structures import BinaryCoded
from tests.support.guarded import guarded

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def made(rows: int, columns: int, planes: int, group: int, offsets: bool, dtype: torch.dtype) -> BinaryCoded:
    group = min(group, columns)
    groups = -(-columns // group)
    signs = torch.rand(planes, rows, columns) > 0.5
    z = torch.randn(rows, groups).to(dtype) if offsets else None
    matrix = BinaryCoded.from_planes(signs, torch.randn(rows, groups, planes).to(dtype), z, group=group)
    return matrix.requires_grad_(False)


def product(matrix: BinaryCoded, x: Tensor) -> Tensor:
    y = Product(BINARY_CODED)(x, matrix.in_memory(), (matrix.group, matrix.columns, matrix.planes))
    assert y is not None
    return y


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 50),
    columns=st.sampled_from([1, 3, 7, 8, 9, 15, 16, 17, 31, 64, 100, 577]),
    planes=st.integers(1, 8),
    group=st.sampled_from([16, 32, 64, 10000]),
    offsets=st.booleans(),
    dtype=st.sampled_from(FLOATS),
    vectors=st.sampled_from([1, 2, 5, 70]),
)
@example(rows=33, columns=4100, planes=2, group=64, offsets=True, dtype=torch.float32, vectors=1)
@example(rows=33, columns=8200, planes=3, group=8200, offsets=True, dtype=torch.float32, vectors=1)
def test_is_the_product_with_the_dense_matrix(
    rows: int, columns: int, planes: int, group: int, offsets: bool, dtype: torch.dtype, vectors: int
) -> None:
    matrix = made(rows, columns, planes, group, offsets, dtype)
    x = torch.randn(vectors, columns)
    double = matrix.float().double()
    wanted = x.double() @ double.to_dense().T
    each = double.scales.abs().amax() * planes + (0 if double.offsets is None else double.offsets.abs().amax())
    matrix.to(dtype)
    for level in levels():
        with capped(level):
            found = product(matrix, x)
        bound = 4 * torch.finfo(torch.float32).eps * columns**0.5 * each * x.double().abs().sum(-1, keepdim=True)
        assert ((found - wanted).abs() <= bound + 1e-30).all()


@pytest.mark.parametrize("planes", [1, 3, 6])
def test_rows_do_not_depend_on_the_others_nor_on_threads(planes: int) -> None:
    whole = made(1000, 200, planes, 64, True, torch.float32)
    x, before = torch.randn(1, 200), torch.get_num_threads()
    for level in levels():
        found = []
        with capped(level):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.append(product(whole, x))
        torch.set_num_threads(before)
        assert torch.equal(*found)


@pytest.mark.parametrize("planes", [2, 5])
def test_processors_with_fused_multiply_adds_agree_bit_for_bit(planes: int) -> None:
    matrix, x, found = made(37, 300, planes, 32, True, torch.float32), torch.randn(1, 300), []
    for level in levels()[1:]:
        with capped(level):
            found.append(product(matrix, x))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("planes", [1, 2, 4, 7])
@pytest.mark.parametrize("columns", [1, 9, 17, 64, 577])
@pytest.mark.parametrize("vectors", [1, 3, 80])
@pytest.mark.parametrize("dtype", FLOATS)
def test_reads_nothing_beyond_its_tensors(planes: int, columns: int, vectors: int, dtype: torch.dtype) -> None:
    for rows in (3, 16, 35):
        matrix = made(rows, columns, planes, 32, True, dtype)
        ends = [None if leaf is None else guarded(leaf) for leaf in matrix.in_memory()]
        x = guarded(torch.randn(vectors, columns))
        wanted = x @ matrix.float().to_dense().T
        for level in levels():
            with capped(level):
                found = Product(BINARY_CODED)(x, ends, (matrix.group, columns, planes))
            assert found is not None
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_tensors_that_do_not_fit_are_not_shown_to_c() -> None:
    matrix, x = made(20, 64, 2, 32, True, torch.float32), torch.randn(1, 64)
    good: list[Tensor | None] = list(matrix.in_memory())
    assert Product(BINARY_CODED)(x, good, (32, 64, 2)) is not None
    for place, bad in [
        (0, matrix.codes[:, :-1].contiguous()),
        (0, matrix.codes.int()),
        (0, None),
        (1, matrix.scales[:-1]),
        (1, matrix.scales.double()),
        (1, matrix.scales.T),
        (1, None),
        (2, matrix.scales),
    ]:
        leaves = list(good)
        leaves[place] = bad
        assert Product(BINARY_CODED)(x, leaves, (32, 64, 2)) is None
    for options in ((0, 64, 2), (8, 64, 2), (24, 64, 2), (16, 64, 2), (32, 66, 2), (32, 64, 1), (32, 64, 9)):
        assert Product(BINARY_CODED)(torch.randn(1, options[1]), good, options) is None


def test_the_op_and_its_reference() -> None:
    matrix, x = made(20, 64, 2, 32, True, torch.float32), torch.randn(3, 64)
    arguments = (x, list(matrix.in_memory()), "binary_coded", [32, 64, 2])
    torch.library.opcheck(torch.ops.eckart.multiplied.default, arguments)
    with capped("off"):
        y = torch.ops.eckart.multiplied(*arguments)
    torch.testing.assert_close(y, x @ matrix.to_dense().T)


def test_inputs_that_are_not_finite_give_outputs_that_are_not() -> None:
    matrix = made(20, 40, 2, 16, False, torch.float32)
    for value in (torch.inf, torch.nan):
        x = torch.randn(1, 40)
        x[0, 3] = value
        assert not product(matrix, x).isfinite().any()
