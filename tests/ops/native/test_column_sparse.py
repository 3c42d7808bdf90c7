"""The product of matrices with as many values in each column, in compiled code, at every level of the processor."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eckart.ops.native.column_sparse import BLOCKS, COLUMN_SPARSE, FOLDED
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.structures import ColumnSparse
from tests.support.guarded import guarded

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def make(size: int, columns: int, stored: int, dtype: torch.dtype = torch.float32) -> ColumnSparse:
    W = torch.randn(size, columns).to(dtype)
    return ColumnSparse.from_dense(W, min(stored, size)).requires_grad_(False)


def guard(matrix: ColumnSparse) -> None:
    matrix.values = nn.Parameter(guarded(matrix.values), requires_grad=False)
    matrix.places = guarded(matrix.places)


def compiled(matrix: ColumnSparse, x: Tensor) -> bool:
    """Whether C makes this product."""
    y = matrix._fused(matrix, x)
    return y is not None or matrix._product(x, (matrix.values, matrix.places), (matrix.shape[0], 1)) is not None


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    columns=st.sampled_from([1, 7, 16, 17, 100, 577]),
    stored=st.sampled_from([1, 2, 9, 40]),
    dtype=st.sampled_from(FLOATS),
    vectors=st.sampled_from([1, 2, 5, 70]),
)
@example(size=300, columns=4000, stored=40, dtype=torch.float32, vectors=1)
@example(size=300, columns=4000, stored=40, dtype=torch.bfloat16, vectors=20)
def test_is_the_product_with_the_dense_matrix(
    size: int, columns: int, stored: int, dtype: torch.dtype, vectors: int
) -> None:
    matrix, x = make(size, columns, stored, dtype), guarded(torch.randn(vectors, columns))
    guard(matrix)
    dense = copy.deepcopy(matrix).double().to_dense()
    wanted, bound = x.double() @ dense.T, x.double().abs() @ dense.abs().T
    for level in levels():
        with capped(level):
            assert compiled(matrix, x)
            found = matrix(x)
        assert ((found - wanted).abs() <= 4 * torch.finfo(torch.float32).eps * columns**0.5 * bound + 1e-30).all()


def test_threads_and_levels_give_the_same_bits() -> None:
    matrix, x, before, found = make(200, 3000, 60), torch.randn(1, 3000), torch.get_num_threads(), []
    assert matrix.recipe()[0][0].options == (200, BLOCKS)
    for level in levels()[1:]:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with capped(level):
                found.append(matrix(x))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("vectors", [1, 5])
def test_places_that_are_written_to_are_looked_at_again(vectors: int) -> None:
    matrix, x = make(9, 50, 3), torch.randn(vectors, 50)
    matrix(x)
    matrix.places.copy_(matrix.places.flip(1))
    torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T, rtol=1e-4, atol=1e-4)
    matrix.places[1, 4] = 9
    assert not compiled(matrix, x)


@pytest.mark.parametrize("vectors", [1, 5])
@pytest.mark.parametrize("value", [30000, -1, -30000])
def test_damage_that_cannot_be_seen_touches_no_other_memory(vectors: int, value: int) -> None:
    with torch.inference_mode():
        matrix, x = make(9, 50, 3), torch.randn(vectors, 50)
        guard(matrix)
        matrix(x)
        matrix.places[1, 4] = value
        for level in levels():
            with capped(level):
                assert compiled(matrix, x)
                assert matrix(x).shape == (vectors, 9)


def test_tensors_that_do_not_fit_are_not_shown_to_c() -> None:
    matrix, x = make(9, 50, 3), torch.randn(1, 50)
    product = Product(COLUMN_SPARSE)
    assert product(x, (matrix.values, matrix.places), (9, 1)) is not None
    for values, places, options in (
        (matrix.values, matrix.places[:2], (9, 1)),
        (matrix.values, matrix.places.long(), (9, 1)),
        (matrix.values.double(), matrix.places, (9, 1)),
        (matrix.values, matrix.places, (0, 1)),
        (matrix.values, matrix.places, (int(matrix.places.max()), 1)),
        (matrix.values.T, matrix.places, (9, 1)),
    ):
        assert product(x, (values, places), options) is None


def test_the_ops_and_their_references() -> None:
    matrix, x = make(9, 50, 3), torch.randn(3, 50)
    for blocks in (1, 4):
        leaves = [matrix.values, matrix.places]
        with capped("off"):
            wanted = torch.ops.eckart.multiplied(x, leaves, "column_sparse", [9, blocks])
            summed = torch.ops.eckart.multiplied(wanted, [], "folded", [9, blocks])
        torch.testing.assert_close(summed, x @ matrix.to_dense().T)
        torch.testing.assert_close(Product(COLUMN_SPARSE)(x[:1], leaves, (9, blocks)), wanted[:1])
        several = Product(COLUMN_SPARSE)(x, leaves, (9, blocks))
        assert (several is None) == (blocks > 1)  # columns of several blocks are not decoded
        torch.testing.assert_close(Product(FOLDED)(wanted, [], (9, blocks)), summed)
