"""A vector times a matrix that is stored entry by entry, in compiled code."""

from __future__ import annotations

import pytest
import torch

from eckart.ops.native.dense import DENSE
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.structures import Dense
from tests.support.guarded import guarded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [1, 15, 16, 64, 65, 577, 2048, 2071])
def test_is_the_product_in_float32(dtype: torch.dtype, columns: int) -> None:
    weight, x = guarded(torch.randn(6, columns).to(dtype)), guarded(torch.randn(1, columns))
    wanted, bound = x.double() @ weight.double().T, x.double().abs() @ weight.double().abs().T
    for level in levels():
        with capped(level):
            found = Product(DENSE)(x, (weight,), ())
        assert found is not None
        assert ((found - wanted).abs() <= 1e-6 * columns**0.5 * bound).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dense_matrices_use_it_for_one_vector(dtype: torch.dtype) -> None:
    matrix, x = Dense(torch.randn(9, 33, dtype=dtype)), torch.randn(4, 33, dtype=dtype)
    with torch.no_grad():
        error = torch.finfo(dtype).eps * 8
        for row in x:
            torch.testing.assert_close(
                matrix(row), (matrix.weight.double() @ row.double()).to(dtype), rtol=error, atol=error
            )
        several = Dense(matrix.weight)
        several(x)
        assert several._product._seen is None
    assert matrix(x[:1]).requires_grad


@pytest.mark.parametrize("columns", [64, 577, 2071])
def test_rows_do_not_depend_on_the_others_nor_on_the_level(columns: int) -> None:
    weight, x, found = torch.randn(9, columns), torch.randn(1, columns), []
    for level in levels():
        with capped(level):
            y = Product(DENSE)(x, (weight,), ())
            assert y is not None
            for row in range(9):
                assert torch.equal(Product(DENSE)(x, (weight[row : row + 1],), ())[0], y[0, row : row + 1])  # type: ignore[index]
            found.append(y)
    assert all(torch.equal(found[1], other) for other in found[2:])
