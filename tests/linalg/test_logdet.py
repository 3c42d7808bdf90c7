"""Determinants of structures against those of what they write out."""

from __future__ import annotations

import math

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg import logdet, slogdet
from eckart.structures import Dense, Diagonal, Hadamard, Permutation, Scaled, Sparse
from support import hard
from support.squares import DEFINITE, OTHERS, thin

NONE = {"other-cosine", "other-toeplitz"}
CASES = [(f"definite-{name}", make, shift) for name, make in DEFINITE.items() for shift in (0.0, 0.7)]
CASES += [(f"other-{name}", make, 0.0) for name, make in OTHERS.items() if f"other-{name}" not in NONE]


def test_every_structure_has_the_determinant_of_its_dense_form_and_its_gradient() -> None:
    for name, make, shift in CASES:
        A = make()
        dense = A(torch.eye(A.shape[1], dtype=A.dtype if name.endswith("bf16") else torch.float64)).T.double()
        expected = torch.linalg.slogdet(dense + shift * torch.eye(len(dense)))
        got = slogdet(A, shift=shift)
        assert got.sign == expected[0], name
        torch.testing.assert_close(got.logabsdet.detach(), expected[1].detach(), msg=name)
        moved = [p for p in A.parameters() if got.logabsdet.requires_grad and p.dtype == torch.float64]
        if moved and not isinstance(A, Permutation) and "householder" not in name:
            mine = torch.autograd.grad(got.logabsdet, moved, allow_unused=True)
            theirs = torch.autograd.grad(expected[1], moved)
            for a, b in zip(mine, theirs, strict=True):
                # Reflections change no determinant.
                torch.testing.assert_close(torch.zeros_like(b) if a is None else a, b, rtol=1e-7, atol=1e-8, msg=name)


def test_a_shifted_permutation_or_hadamard_matrix() -> None:
    for A in (Permutation(torch.tensor([2, 0, 1, 4, 3, 5])), Hadamard(1), Hadamard(4)):
        M = A.to_dense().double() + 0.3 * torch.eye(A.shape[0], dtype=torch.float64)
        torch.testing.assert_close(slogdet(A, shift=0.3), tuple(torch.linalg.slogdet(M)))


def test_n_counts() -> None:
    """The determinant of 2 I_3 is 8."""
    assert float(logdet(Scaled(Dense(torch.eye(3)), scale=2.0)).detach()) == pytest.approx(math.log(8))


def test_determinants_without_logarithm_are_told() -> None:
    with pytest.raises(Refused, match="sign -1, and no logarithm"):
        logdet(Diagonal(torch.tensor([1.0, -2.0])))
    assert slogdet(thin(5, 2)) == (0, -torch.inf)
    assert slogdet(Dense(torch.zeros(2, 2))) == (0, -torch.inf)
    with pytest.raises(Refused, match="no rule for Sparse"):
        slogdet(Sparse.from_dense(hard.normal(3, 3)))
