"""Masked: values and a bit for each place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.ops.order_statistics import largest
from eckart.structures import Dense, Masked, Sparse
from support import hard
from support.pruning import random_mask

few = settings(deadline=None, max_examples=25)


@few
@given(st.integers(1, 7), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_masked_against_a_loop(out: int, columns: int, density: float, seed: int) -> None:
    W, mask = hard.normal(out, columns, seed=seed), random_mask(out, columns, density, seed)
    masked = Masked.from_dense(W, mask)
    masked.check_values()
    width = -(-columns // 8)
    values, packed = [], [[0] * width for _ in range(out)]
    for i in range(out):
        for j in range(columns):
            if mask[i, j]:
                values.append(float(W[i, j]))
                packed[i][j % width] |= 1 << (j // width)
    assert masked.values.tolist() == values
    assert masked.mask.tolist() == packed
    assert masked.mask.dtype == torch.uint8
    dense = torch.where(mask, W, 0.0)
    assert torch.equal(masked.to_dense(), dense)
    index = torch.randint(out, (2, 5), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(masked.rows(index), dense[index])
    cost = masked.cost()
    assert (cost.parameters, cost.bytes, cost.macs) == (len(values), 8 * len(values) + out * width, len(values))
    assert Masked.empty((out, columns), len(values), W.dtype).cost() == cost


def test_masked_stores_zeros_that_train() -> None:
    masked = Masked.from_dense(torch.zeros(2, 3), torch.tensor([[True, False, False], [False, False, True]]))
    masked.check_values()
    masked(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert masked.values.grad is not None
    assert masked.values.grad.tolist() == [1, 3]


def test_masked_rows_train_the_values_asked_for() -> None:
    masked = Masked.from_dense(torch.ones(3, 4), torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool())
    masked.rows(torch.tensor([2, 0, 2])).sum().backward()
    assert masked.values.grad is not None
    assert masked.values.grad.tolist() == [1, 1, 0, 0, 0, 0, 2]


def test_masked_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    W, mask = hard.normal(23, 10, seed=4), random_mask(23, 10, 0.5)
    mask[5:9] = False
    x, g = hard.normal(3, 10, seed=5).requires_grad_(), hard.normal(3, 23, seed=6)
    results = []
    for piece in (1 << 20, 40, 1):
        monkeypatch.setattr("eckart.structures.masked.PIECE", piece)
        masked = Masked.from_dense(W, mask)
        y = masked(x)
        results.append((masked.to_dense(), y, *torch.autograd.grad((y * g).sum(), [masked.values, x])))
    assert torch.equal(results[0][0], torch.where(mask, W, 0.0))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_masked_on_the_meta_device() -> None:
    masked = Masked.empty((3000, 1000), 7, torch.float32)
    assert masked(torch.ones(2, 1000, device="meta")).shape == (2, 3000)
    assert masked.to_dense().shape == (3000, 1000)


def test_masked_forward_of_another_precision_is_refused_as_by_a_dense_layer() -> None:
    masked = Masked.from_dense(torch.ones(3, 4), torch.ones(3, 4).bool())
    with pytest.raises(RuntimeError, match="dtype"):
        masked(torch.ones(2, 4).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_masked_is_the_smaller_one_above_a_sixteenth(dtype: torch.dtype) -> None:
    W = hard.normal(64, 256, seed=2).to(dtype)
    for kept in range(1, 16):
        mask = largest(W.double().abs(), 16 * kept)
        masked, sparse = Masked.from_dense(W, mask), Sparse.from_dense(W * mask)
        assert torch.equal(masked.to_dense(), sparse.to_dense())
        assert masked.cost().bytes < sparse.cost().bytes
    assert Masked.from_dense(W, largest(W.double().abs(), 128)).cost().bytes * 16 == Dense(W).cost().bytes * (
        9 if dtype == torch.bfloat16 else 8.5
    )


byte = torch.uint8

WRONG: dict[str, Callable[[], Masked]] = {
    "mask must be torch.uint8 of shape": lambda: Masked(torch.ones(2), torch.zeros(2, 2), size=9),
    r"shape \(out, 2\), got torch.uint8 of shape \(2, 1\)": lambda: Masked(
        torch.ones(2), torch.zeros(2, 1, dtype=byte), size=9
    ),
    "values must be a floating-point tensor": lambda: Masked(torch.ones(2, 1), torch.zeros(2, 2, dtype=byte), size=9),
    r"19 values do not fit a matrix of shape \(2, 9\)": lambda: Masked(
        torch.ones(19), torch.zeros(2, 2, dtype=byte), size=9
    ),
    "mask must be torch.bool": lambda: Masked.from_dense(torch.ones(2, 3), torch.ones(2, 3)),
    r"of shape \(2, 3\), got torch.bool of shape \(3, 2\)": lambda: Masked.from_dense(
        torch.ones(2, 3), torch.ones(3, 2).bool()
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_masked_refuses(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_masked_finds_damage() -> None:
    good = Masked.from_dense(torch.ones(2, 9), random_mask(2, 9, 0.5))
    nnz = len(good.values)
    with pytest.raises(ValueError, match=f"{nnz - 1} values but {nnz} places"):
        Masked(good.values[1:], good.mask, size=9).check_values()
    # 9 columns in 2 bytes: the second byte has place for columns 1, 3, 5, 7, then for 9, 11, ...
    beyond = torch.zeros(2, 2, dtype=byte)
    beyond[1, 1] = 1 << 4
    with pytest.raises(ValueError, match="columns beyond 9"):
        Masked(torch.ones(1), beyond, size=9).check_values()
