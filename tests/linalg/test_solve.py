"""Solving with structures against solving with what they write out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_sylvester

from eckart.errors import Refused
from eckart.linalg import slogdet, solve
from eckart.structures import (
    BlockDiagonal,
    Chain,
    Dense,
    Diagonal,
    Interleaved,
    Kronecker,
    Permutation,
    Repeated,
    Sparse,
    StructuredMatrix,
    Sum,
    Toeplitz,
    kronecker_sum,
    low_rank,
)
from support import hard
from support.squares import DEFINITE, OTHERS, gram, thin

CASES = [(f"definite-{name}", make, shift) for name, make in DEFINITE.items() for shift in (0.0, 0.7)]
CASES += [(f"other-{name}", make, 0.0) for name, make in OTHERS.items()]


def test_every_structure_solves_as_its_dense_form_does() -> None:
    for name, make, shift in CASES:
        A = make()
        n = A.shape[0]
        M = A.to_dense().detach().double() + shift * torch.eye(n)
        for b in (hard.normal(n), hard.normal(n, 3), hard.normal(3, n).T):
            torch.testing.assert_close(solve(A, b, shift=shift).detach(), torch.linalg.solve(M, b), msg=name)


def test_gradients_are_those_of_the_dense_solution() -> None:
    for name, make, shift in CASES:
        A = make()
        if any(p.dtype != torch.float64 for p in A.parameters()):
            continue
        b = hard.normal(A.shape[0], 2, seed=5).requires_grad_()
        g = hard.normal(A.shape[0], 2, seed=6)
        inputs = [b, *A.parameters()]
        dense = A(torch.eye(A.shape[1], dtype=torch.float64)).T
        expected = torch.autograd.grad((torch.linalg.solve(dense + shift * torch.eye(len(b)), b) * g).sum(), inputs)
        got = torch.autograd.grad((solve(A, b, shift=shift) * g).sum(), inputs)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-8, msg=name)


def test_it_comes_back_as_it_came() -> None:
    A = Dense(gram(4))
    assert solve(A, np.ones(4, np.float32)).dtype == np.float32
    assert solve(A, np.ones((4, 2))).shape == (4, 2)
    assert solve(A, torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert solve(A, torch.ones(4, 0)).shape == (4, 0)


SINGULAR: dict[str, StructuredMatrix] = {
    "zero": Dense(torch.zeros(3, 3)),
    "rank-one": Dense(torch.ones(3, 3)),
    "deficient": Dense(hard.normal(6, 3, seed=1) @ hard.normal(3, 6)),
    "hilbert": Dense(hard.weights()["hilbert"]),
    "diagonal": Diagonal(torch.tensor([1.0, 0.0])),
    "blocks": BlockDiagonal(torch.zeros(2, 2, 2)),
    "kronecker": Kronecker(torch.ones(2, 2), torch.eye(2)),
    "thin": thin(5, 2),
    "sum": Sum(thin(5, 2), low_rank(hard.normal(5, 1), hard.normal(1, 5))),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_are_refused(name: str) -> None:
    with pytest.raises(Refused, match="singular"):
        solve(SINGULAR[name], hard.normal(SINGULAR[name].shape[0], seed=7))


@pytest.mark.parametrize(
    ("A", "shift", "words"),
    [
        (Dense(torch.ones(2, 3)), 0.0, r"square matrices, got Dense of shape \(2, 3\)"),
        (Sparse.from_dense(torch.eye(3)), 0.0, "no rule for Sparse: take it of Dense"),
        (Permutation(torch.tensor([1, 0])), 1.0, "no rule for Permutation .an orthogonal matrix with a shift"),
        (kronecker_sum(Dense(torch.eye(2)), Dense(torch.triu(torch.ones(3, 3)))), -2.0, "is singular"),
        (
            Chain(Repeated(Dense(hard.normal(2, 2)), copies=2), Interleaved(Dense(hard.normal(2, 2)), copies=2)),
            1.0,
            "A the whole matrix that this",
        ),
        (Chain(Dense(hard.normal(3, 3)), Dense(hard.normal(3, 3))), 1.0, "no rule for Chain of Dense, Dense"),
        (Dense(torch.tensor([[float("nan")]])), 0.0, "NaN or Inf entries in weight"),
        (Toeplitz(torch.tensor([1.0, 0.0, 1.0]), columns=2), 0.0, "leading block"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(A: StructuredMatrix, shift: float, words: str) -> None:
    with pytest.raises(Refused, match=words):
        solve(A, torch.ones(A.shape[0]), shift=shift)


def test_sylvesters_equation_is_a_kronecker_sum() -> None:
    """A X + X B^T = C; with eigenvalues of A that are those of -B there is no solution."""
    a, b, c = hard.normal(5, 5), hard.normal(3, 3, seed=1), hard.normal(5, 3, seed=2)
    x = solve(kronecker_sum(Dense(a), Dense(b)), c.flatten()).reshape(5, 3)
    torch.testing.assert_close(a @ x + x @ b.T, c)
    expected = solve_sylvester(a.numpy(), b.T.numpy(), c.numpy())
    np.testing.assert_allclose(x.detach(), expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(Refused, match="singular"):
        solve(kronecker_sum(Dense(a), Dense(-a)), torch.ones(25, dtype=torch.float64))


def test_a_right_side_that_does_not_fit_is_refused() -> None:
    for b in (torch.ones(3), torch.ones(4, 1, 1), torch.full((4,), torch.nan), np.array(["a"] * 4)):
        with pytest.raises(Refused):
            solve(Dense(gram(4)), b)
    with pytest.raises(TypeError, match=r"wrap a tensor in structures.Dense"):
        solve(torch.eye(3), torch.ones(3))  # type: ignore[arg-type]


@given(st.data())
def test_singular_sums_of_whole_numbers_are_refused(data: st.DataObject) -> None:
    """A (+) B or A x B plus a shift with an eigenvalue of zero, of small integers, on which products cancel exactly."""
    a, b = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    numbers = st.integers(-2, 2)
    left, right = (
        torch.tensor(data.draw(st.lists(numbers, min_size=n * n, max_size=n * n)), dtype=torch.float64).view(n, n)
        for n in (a, b)
    )
    whole = torch.kron(left, torch.eye(b)) + torch.kron(torch.eye(a), right)
    real = [v.real.round().item() for v in torch.linalg.eigvals(whole) if abs(v - v.real.round()) < 1e-9]
    if not real:
        return
    shift = -float(real[0])
    rhs = torch.randn(a * b, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if torch.linalg.matrix_rank(whole + shift * torch.eye(a * b)) == a * b:
        return
    with pytest.raises(Refused, match="singular"):
        solve(kronecker_sum(Dense(left), Dense(right)), rhs, shift=shift)


def test_a_solution_that_its_dtype_does_not_hold_is_refused() -> None:
    small = kronecker_sum(Dense(1e-6 * torch.eye(2).double()), Dense(torch.tensor([[1e-6]]).double()))
    with pytest.raises(Refused, match=r"more than torch\.float16 holds"):
        solve(small, torch.ones(2, dtype=torch.float16))
    with pytest.raises(Refused, match="overflows float64"):
        solve(small, torch.full((2,), 1e305, dtype=torch.float64))


@pytest.mark.parametrize("of", [solve, lambda a, b: slogdet(a)[1]])
def test_gradients_of_gradients_are_refused_and_not_left_out(of: Callable[..., torch.Tensor]) -> None:
    left = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    matrix = kronecker_sum(Dense(left), Dense(torch.eye(2).double())).requires_grad_()
    value = of(matrix, torch.ones(4).double()).sum()
    with pytest.raises(Refused, match="no gradients of these"):
        torch.autograd.grad(value, [*matrix.parameters()], create_graph=True)
