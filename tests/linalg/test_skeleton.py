"""`skeleton` against the product it stores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.linalg import skeleton
from support import hard

few = settings(deadline=None, max_examples=25)


def restored(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The product a skeleton stores, and its combinations; checks what always holds."""
    pivots, rest, rows = skeleton(left, right)
    out, r = len(left), len(pivots)
    assert 1 <= r <= left.shape[1]
    assert pivots.dtype == torch.int64
    assert len(set(pivots.tolist())) == r
    assert rest.shape == (out - r, r)
    assert rows.shape == (r, right.shape[1])
    others = torch.ones(out, dtype=torch.bool)
    others[pivots] = False
    product = rows.new_zeros(out, right.shape[1])
    product[pivots], product[others] = rows, rest @ rows
    return product, rest


@few
@given(out=st.integers(1, 30), rank=st.integers(1, 30), columns=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_skeleton_stores_the_product(out: int, rank: int, columns: int, seed: int) -> None:
    rank = min(rank, out)
    left, right = hard.normal(out, rank, seed=seed), hard.normal(rank, columns, seed=seed + 1)
    product, rest = restored(left, right)
    assert (product - left @ right).norm() <= 1e-10 * (left @ right).norm()
    assert rest.shape == (out - rank, rank)
    assert rest.numel() == 0 or rest.abs().max() < 100


def test_a_skeleton_of_a_smaller_rank_says_so() -> None:
    left, right = hard.normal(12, 3) @ hard.normal(3, 7, seed=1), hard.normal(7, 9, seed=2)
    product, rest = restored(left, right)
    assert rest.shape == (9, 3)
    torch.testing.assert_close(product, left @ right, rtol=1e-10, atol=1e-11)


def test_a_skeleton_of_a_square_left_keeps_all_rows() -> None:
    product, rest = restored(hard.normal(6, 6), hard.normal(6, 9, seed=1))
    assert rest.shape == (0, 6)
    torch.testing.assert_close(product, hard.normal(6, 6) @ hard.normal(6, 9, seed=1), rtol=1e-12, atol=1e-12)


def test_a_skeleton_of_nothing_is_nothing() -> None:
    for left, right in ((torch.zeros(5, 2), hard.normal(2, 3)), (hard.normal(5, 2), torch.zeros(2, 3))):
        product, rest = restored(left, right)
        assert not product.any()
        assert torch.isfinite(rest).all()


@pytest.mark.parametrize("scale", [1e-290, 1e-30, 1e30, 1e290])
def test_a_skeleton_does_not_care_for_scale(scale: float) -> None:
    left, right = hard.normal(9, 4), hard.normal(4, 5, seed=1)
    product, rest = restored(left * scale, right)
    torch.testing.assert_close(product / scale, left @ right, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rest, skeleton(left, right)[1], rtol=1e-9, atol=1e-9)


def test_a_skeleton_of_kahan_is_moderate() -> None:
    left = torch.cat([hard.kahan(20).T, hard.normal(10, 20)])[:, :15]
    product, rest = restored(left, torch.eye(15).double())
    assert (product - left).norm() <= 1e-10 * left.norm()
    assert rest.abs().max() < 1000
