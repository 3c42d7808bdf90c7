"""The product of codes for vectors of rows in compiled code is that of PyTorch, at every level of the processor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.ops.native.layouts import FLOATS
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.ops.native.vector_quantized import VECTOR_QUANTIZED
from eckart.structures import VectorQuantized
from tests.support.guarded import guarded

SHAPES = [(8, 4), (4, 2), (6, 2), (8, 2), (3, 1)]


def made(rows: int, columns: int, bits: int, length: int, group: int, dtype: torch.dtype) -> VectorQuantized:
    codes = torch.randint(1 << bits, (-(-rows // length), columns), dtype=torch.uint8)
    scales, book = torch.randn(rows, -(-columns // group)).to(dtype), torch.randn(1 << bits, length).to(dtype)
    return VectorQuantized.from_codes(codes, scales, book, group=group).requires_grad_(False)


def product(matrix: VectorQuantized, x: Tensor) -> Tensor:
    y = Product(VECTOR_QUANTIZED)(x, matrix.in_memory(), (matrix.bits, matrix.length, matrix.group, matrix.columns))
    assert y is not None
    return y


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.sampled_from([1, 7, 15, 16, 17, 63, 64, 100, 577]),
    bits=st.integers(2, 8),
    length=st.sampled_from([1, 2, 4]),
    group=st.sampled_from([1, 5, 16, 64, 100, 10000]),
    dtype=st.sampled_from(list(FLOATS)),
    vectors=st.sampled_from([1, 2, 5, 70]),
)
@example(rows=37, columns=577, bits=8, length=4, group=64, dtype=torch.bfloat16, vectors=1)
def test_is_the_product_with_the_dense_matrix(
    rows: int, columns: int, bits: int, length: int, group: int, dtype: torch.dtype, vectors: int
) -> None:
    matrix = made(rows, columns, bits, length, group, dtype)
    x = torch.randn(vectors, columns)
    dense = matrix.double().to_dense()
    matrix.to(dtype)
    wanted, bound = x.double() @ dense.T, x.double().abs() @ dense.abs().T
    for level in levels():
        with capped(level):
            found = product(matrix, x)
        assert ((found - wanted).abs() <= 4 * torch.finfo(torch.float32).eps * columns**0.5 * bound + 1e-30).all()


@pytest.mark.parametrize(("bits", "length"), SHAPES)
def test_rows_do_not_depend_on_the_others_nor_on_threads(bits: int, length: int) -> None:
    whole, before = made(1003, 200, bits, length, 64, torch.float32), torch.get_num_threads()
    x = torch.randn(1, 200)
    for level in levels():
        with capped(level):
            found = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.append(product(whole, x))
            torch.set_num_threads(before)
            assert torch.equal(*found)
            for first in (0, 4, 500, 1000):
                codes, scales = whole.codes[first // length :], whole.scales[:, first:]
                part = VectorQuantized(codes.clone(), scales.contiguous(), whole.codebook, group=64, columns=200)
                assert torch.equal(product(part.requires_grad_(False), x), found[0][:, first:])


@pytest.mark.parametrize(("bits", "length"), SHAPES)
def test_processors_with_fused_multiply_adds_agree_bit_for_bit(bits: int, length: int) -> None:
    matrix, x, found = made(37, 300, bits, length, 32, torch.float32), torch.randn(1, 300), []
    for level in levels()[1:]:
        with capped(level):
            found.append(product(matrix, x))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("bits", "length"), SHAPES)
@pytest.mark.parametrize("columns", [1, 17, 64, 577])
def test_reads_nothing_beyond_its_tensors(bits: int, length: int, columns: int) -> None:
    for rows, vectors, dtype in ((3, 1, torch.bfloat16), (16, 3, torch.float32), (35, 80, torch.float16)):
        matrix = made(rows, columns, bits, length, 32, dtype)
        ends = [None if leaf is None else guarded(leaf) for leaf in matrix.in_memory()]
        x = guarded(torch.randn(vectors, columns))
        wanted = x @ matrix.float().to_dense().T
        for level in levels():
            with capped(level):
                found = Product(VECTOR_QUANTIZED)(x, ends, (bits, length, matrix.group, columns))
            assert found is not None
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_tensors_that_do_not_fit_are_not_shown_to_c() -> None:
    matrix, x = made(20, 64, 4, 2, 32, torch.float32), torch.randn(1, 64)
    good: list[Tensor | None] = list(matrix.in_memory())
    assert Product(VECTOR_QUANTIZED)(x, good, (4, 2, 32, 64)) is not None
    for place, bad in [
        (0, matrix.codes[:-1]),
        (0, matrix.codes[:, :-1].contiguous()),
        (0, matrix.codes.int()),
        (0, None),
        (1, matrix.scales[:, :-2].contiguous()),
        (1, matrix.scales.double()),
        (1, matrix.scales.T),
        (1, matrix.scales[0]),
        (1, None),
        (2, matrix.codebook[:-1]),
        (2, matrix.codebook.flatten()),
        (2, matrix.codebook.double()),
        (2, None),
    ]:
        leaves = list(good)
        leaves[place] = bad
        assert Product(VECTOR_QUANTIZED)(x, leaves, (4, 2, 32, 64)) is None
    for options in ((4, 2, 0, 64), (4, 2, 16, 64), (4, 2, 32, 66), (5, 2, 32, 64), (4, 1, 32, 64), (1, 2, 32, 64)):
        assert Product(VECTOR_QUANTIZED)(torch.randn(1, options[3]), good, options) is None
    three = [matrix.codes[:7], matrix.scales, torch.randn(16, 3)]
    assert Product(VECTOR_QUANTIZED)(x, three, (4, 3, 32, 64)) is None


def test_the_reference_of_the_op() -> None:
    matrix, x = made(20, 64, 6, 2, 32, torch.float32), torch.randn(3, 64)
    with capped("off"):
        y = torch.ops.eckart.multiplied(x, list(matrix.in_memory()), "vector_quantized", [6, 2, 32, 64])
    torch.testing.assert_close(y, x @ matrix.to_dense().T)
