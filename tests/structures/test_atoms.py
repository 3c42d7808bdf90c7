"""What each atom means, against a construction of its own, and what each refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct
from scipy.linalg import hadamard

from eckart.structures import (
    BlockDiagonal,
    Chain,
    ColumnSparse,
    Cosine,
    Dense,
    Diagonal,
    Hadamard,
    Identity,
    Interpolative,
    Kronecker,
    Monarch,
    Permutation,
    Selection,
    SemiSparse,
    Sparse,
    Stack,
    StructuredMatrix,
    Sum,
    interpolative_cost,
    low_rank,
    low_rank_cost,
)
from eckart.structures._checks import index_dtype
from support.market import Stall

few = settings(deadline=None, max_examples=20)


def test_dtype_of_an_index() -> None:
    assert [index_dtype(n) for n in (1, 32766, 32767, 2**31 - 2, 2**31)] == [
        torch.int16, torch.int16, torch.int32, torch.int32, torch.int64,
    ]  # fmt: skip


def test_sparse_keeps_the_entries() -> None:
    W = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 3.0]])
    sparse = Sparse.from_dense(W)
    assert torch.equal(sparse.to_dense(), W)
    assert sparse.values.tolist() == [2, -1, 3]
    assert sparse.columns.tolist() == [1, 0, 2]
    assert sparse.offsets.tolist() == [0, 1, 1, 3]
    assert sparse.columns.dtype == sparse.offsets.dtype == torch.int16
    assert sparse.cost().parameters == sparse.cost().macs == 3


def test_sparse_stores_zeros_that_train() -> None:
    sparse = Sparse(torch.zeros(2), torch.tensor([0, 2]), torch.tensor([0, 1, 2]), size=3)
    sparse.check_values()
    sparse(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert sparse.values.grad is not None
    assert sparse.values.grad.tolist() == [1, 3]


@few
@given(
    st.integers(1, 8), st.integers(1, 40), st.sampled_from([(1, 2), (2, 4), (4, 4), (3, 5), (4, 8), (5, 16), (1, 256)])
)
def test_semisparse_keeps_the_largest(out: int, columns: int, pattern: tuple[int, int]) -> None:
    n, m = pattern
    W = Stall(f"{out} {columns} {m}", torch.float32).normal(out, columns)
    structure = SemiSparse.from_dense(W, n, m)
    structure.check_values()
    dense = structure.to_dense()
    for i in range(out):
        for start in range(0, columns, m):
            group, kept = W[i, start : start + m], dense[i, start : start + m]
            largest = group.abs().topk(min(n, len(group))).indices
            expected = torch.zeros_like(group).scatter(0, largest, group[largest])
            assert torch.equal(kept, expected)


def test_semisparse_is_smaller_in_the_file() -> None:
    W = torch.ones(64, 128, dtype=torch.bfloat16)
    assert SemiSparse.from_dense(W, 2, 4).cost().bytes * 16 == Dense(W).cost().bytes * 9


@few
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_column_sparse_keeps_the_largest(out: int, columns: int, data: st.DataObject) -> None:
    s = data.draw(st.integers(1, out))
    W = Stall(f"{out} {columns}", torch.float64).normal(out, columns)
    structure = ColumnSparse.from_dense(W, s)
    structure.check_values()
    dense = structure.to_dense()
    assert (dense != 0).sum(0).tolist() == [s] * columns
    assert torch.equal(dense[dense != 0], W[dense != 0])
    kept, cut = W.abs().where(dense != 0, torch.inf), W.abs().where(dense == 0, -torch.inf)
    assert (kept.amin(0) >= cut.amax(0)).all()
    x = Stall("x", torch.float64).normal(out + 2, columns)
    torch.testing.assert_close(structure(x), torch.stack([structure(row) for row in x]))


def test_block_diagonal_against_torch() -> None:
    blocks = Stall("blocks", torch.float32).normal(3, 2, 4)
    assert torch.equal(BlockDiagonal(blocks).to_dense(), torch.block_diag(*blocks))


@few
@given(*[st.integers(1, 5)] * 4)
def test_kronecker_against_its_definition(a: int, b: int, c: int, d: int) -> None:
    stall = Stall("factors", torch.float64)
    A, B, x = stall.normal(a, b), stall.normal(c, d), stall.normal(2, b * d)
    structure = Kronecker(A, B)
    W = torch.einsum("ab,cd->acbd", A, B).reshape(a * c, b * d)
    torch.testing.assert_close(structure.to_dense().detach(), W)
    torch.testing.assert_close(structure(x), x @ W.T)
    assert structure.cost().parameters == a * b + c * d
    assert structure.cost().macs == min(a * b * d + a * d * c, b * d * c + a * b * c)


def test_permutation_and_selection() -> None:
    x = torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert Permutation(torch.tensor([2, 0, 3, 1]))(x).tolist() == [30, 10, 40, 20]
    assert Selection(torch.tensor([3, 3, 0]), size=4)(x).tolist() == [40, 40, 10]
    picked = torch.tensor([3, 0])
    back = Selection(picked, size=4, adjoint=True)
    assert back(torch.tensor([1.0, 2.0])).tolist() == [2, 0, 0, 1]
    assert torch.equal(back.to_dense(), Selection(picked, size=4).to_dense().T)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 60])
def test_cosine_against_scipy(n: int) -> None:
    eye = torch.eye(n, dtype=torch.float64)
    C = torch.from_numpy(dct(eye.numpy(), type=2, norm="ortho", axis=0))
    torch.testing.assert_close(Cosine(n)(eye).T, C, atol=1e-14, rtol=0)
    torch.testing.assert_close(Cosine(n, adjoint=True)(eye), C, atol=1e-14, rtol=0)
    torch.testing.assert_close(Chain(Cosine(n, adjoint=True), Cosine(n))(eye), eye, atol=1e-14, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 128])
def test_hadamard_against_scipy(n: int) -> None:
    eye = torch.eye(n, dtype=torch.float64)
    H = torch.from_numpy(hadamard(n, dtype=float)) / n**0.5
    torch.testing.assert_close(Hadamard(n)(eye), H, atol=1e-14, rtol=0)


def test_hadamard_says_which_sizes_work() -> None:
    with pytest.raises(ValueError, match=r"power of two, got 12; the nearest are 8 and 16"):
        Hadamard(12)


def test_combinators_against_torch() -> None:
    stall = Stall("combinators", torch.float64)
    A, B, C = stall.normal(3, 4), stall.normal(3, 4), stall.normal(4, 2)
    assert torch.equal(Sum(Dense(A), Dense(B)).to_dense(), A + B)
    torch.testing.assert_close(Chain(Dense(A), Dense(C)).to_dense().detach(), A @ C)
    assert torch.equal(Stack(Dense(A), Dense(B)).to_dense(), torch.cat([A, B]))


@few
@given(st.integers(1, 9), st.integers(1, 6), st.data())
def test_interpolative(out: int, columns: int, data: st.DataObject) -> None:
    pivots = torch.tensor(data.draw(st.permutations(range(out))))[: data.draw(st.integers(1, out))]
    r = len(pivots)
    stall = Stall(f"{out} {columns} {r}", torch.float64)
    rest, rows = stall.normal(out - r, r), stall.normal(r, columns)
    structure = Interpolative.from_pivots(pivots, rest, rows)
    structure.check_values()
    W = structure.to_dense().detach()
    others = [i for i in range(out) if i not in pivots.tolist()]
    assert torch.equal(W[pivots], rows)
    torch.testing.assert_close(W[others], rest @ rows)
    assert structure.cost() == interpolative_cost(out, columns, r, 8)
    assert low_rank(stall.normal(out, r), rows).cost() == low_rank_cost(out, columns, r, 8)


@few
@given(*[st.integers(1, 4)] * 5)
def test_kronecker_of_many_is_their_sum(r: int, a: int, b: int, c: int, d: int) -> None:
    stall = Stall("factors", torch.float64)
    # Of as many vectors as there are terms, and of more, which are multiplied otherwise where factors are squarish.
    A, B, x = stall.normal(r, a, b), stall.normal(r, c, d), stall.normal(6, b * d)
    structure, one_by_one = Kronecker(A, B), Sum(*map(Kronecker, A, B))
    torch.testing.assert_close(structure.to_dense(), one_by_one.to_dense())
    for part in (x, x[:1]):
        torch.testing.assert_close(structure(part), one_by_one(part))
    assert structure.cost() == one_by_one.cost()


@pytest.mark.parametrize("pivots", [[0, 0], [0, 5], [-1, 2], [0], [[0, 1]]], ids=str)
def test_interpolative_refuses(pivots: list[int]) -> None:
    with pytest.raises(ValueError, match="pivot"):
        Interpolative.from_pivots(torch.tensor(pivots), torch.zeros(3, 2), torch.zeros(2, 4))


v = torch.ones
IMPOSSIBLE: dict[str, Callable[[], StructuredMatrix]] = {
    "sparse column": lambda: Sparse(v(2), torch.tensor([0, 3]), torch.tensor([0, 2]), size=3),
    "sparse negative": lambda: Sparse(v(2), torch.tensor([-1, 2]), torch.tensor([0, 2]), size=3),
    "sparse unsorted": lambda: Sparse(v(2), torch.tensor([2, 0]), torch.tensor([0, 2]), size=3),
    "sparse twice": lambda: Sparse(v(2), torch.tensor([1, 1]), torch.tensor([0, 2]), size=3),
    "sparse start": lambda: Sparse(v(2), torch.tensor([0, 1]), torch.tensor([1, 2]), size=3),
    "sparse end": lambda: Sparse(v(2), torch.tensor([0, 1]), torch.tensor([0, 1]), size=3),
    "sparse descent": lambda: Sparse(v(2), torch.tensor([0, 1]), torch.tensor([0, 2, 1, 2]), size=3),
    "sparse wrap": lambda: Sparse(v(1), torch.tensor([2**16]), torch.tensor([0, 1]), size=3),
    "semisparse order": lambda: SemiSparse(v(1, 2), torch.tensor([[0b0000]], dtype=torch.uint8), n=2, m=4, size=4),
    "semisparse range": lambda: SemiSparse(v(1, 1), torch.tensor([[3]], dtype=torch.uint8), n=1, m=3, size=3),
    "column-sparse range": lambda: ColumnSparse(v(1, 2), torch.tensor([[0, 3]]), size=3),
    "column-sparse twice": lambda: ColumnSparse(v(2, 1), torch.tensor([[1], [1]]), size=3),
    "permutation twice": lambda: Permutation(torch.tensor([0, 0, 1])),
    "permutation range": lambda: Permutation(torch.tensor([0, 1, 3])),
    "permutation wrap": lambda: Permutation(torch.tensor([0, 1 + 2**32])),
    "selection range": lambda: Selection(torch.tensor([4]), size=4),
    "selection twice": lambda: Selection(torch.tensor([1, 1]), size=4, adjoint=True),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_values_are_found(name: str) -> None:
    structure = IMPOSSIBLE[name]()
    for broken in (structure, Sum(Chain(structure, Identity(structure.shape[1])))):
        with pytest.raises(ValueError, match=type(structure).__name__):
            broken.check_values()


WRONG: dict[str, Callable[[], StructuredMatrix]] = {
    "Identity": lambda: Identity(0),
    "Identity ": lambda: Identity(True),
    "Diagonal": lambda: Diagonal(v(2, 2)),
    "Sparse": lambda: Sparse(v(2), torch.tensor([0]), torch.tensor([0, 2]), size=3),
    "SemiSparse": lambda: SemiSparse.from_dense(v(2, 4), 5, 4),
    "SemiSparse ": lambda: SemiSparse(v(1, 3), torch.zeros(1, 1, dtype=torch.uint8), n=2, m=4, size=4),
    "ColumnSparse": lambda: ColumnSparse.from_dense(v(2, 4), 3),
    "ColumnSparse ": lambda: ColumnSparse(v(2, 4), torch.zeros(2, 3, dtype=torch.int64), size=5),
    "BlockDiagonal": lambda: BlockDiagonal(v(2, 4)),
    "Kronecker": lambda: Kronecker(v(2, 2), v(2, 2).double()),
    "Kronecker ": lambda: Kronecker(v(2, 2, 2), v(3, 2, 2)),
    "Kronecker  ": lambda: Kronecker(v(1, 2, 2), v(2, 2)),
    "Kronecker   ": lambda: Kronecker(v(0, 2, 2), v(0, 2, 2)),
    "Monarch": lambda: Monarch(v(2, 3, 4), v(2, 4, 3).double()),
    "Monarch ": lambda: Monarch(v(2, 3, 4), v(3, 6, 3)),
    "Monarch  ": lambda: Monarch(v(0, 3, 4), v(2, 0, 3)),
    "Permutation": lambda: Permutation(v(3)),
    "Selection": lambda: Selection(torch.tensor([0, 1, 1]), size=2, adjoint=True),
    "Cosine": lambda: Cosine(-1),
    "Sum": lambda: Sum(Identity(2), Identity(3)),
    "Chain": lambda: Chain(Identity(2), Identity(3)),
    "Stack": lambda: Stack(Identity(2), Identity(3)),
    "Stack ": lambda: Stack(),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name.strip()):
        WRONG[name]()
