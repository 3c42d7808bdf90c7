"""Norms and singular values of structures against their dense forms."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg import norm, svdvals
from eckart.structures import Chain, Cosine, Dense, Selection, Sparse, Stack, Toeplitz
from support.hard import normal
from support.market import DTYPES, market
from support.squares import DEFINITE


def test_on_all_that_have_a_rule() -> None:
    ruled = set()
    for name, A in [*market(DTYPES[:1]), *((name, make()) for name, make in DEFINITE.items())]:
        W = A.to_dense().detach().double()
        try:
            torch.testing.assert_close(norm(A).detach(), torch.linalg.matrix_norm(W), msg=name)
            ruled.add(A.kind)
            values = svdvals(A).detach()
        except Refused as refused:
            assert "no rule" in str(refused)  # noqa: PT017
            continue
        torch.testing.assert_close(values, torch.linalg.svdvals(W), msg=name)
        torch.testing.assert_close(norm(A, 2).detach(), torch.linalg.matrix_norm(W, 2), msg=name)
        torch.testing.assert_close(norm(A, "nuc").detach(), torch.linalg.matrix_norm(W, "nuc"), msg=name)
    atoms = {"dense", "diagonal", "identity", "block-diagonal", "kronecker", "circulant", "selection", "hadamard"}
    assert ruled >= atoms | {"chain", "sum", "toeplitz", "sparse", "scaled", "repeated", "interleaved", "householder"}


def test_thin_products_between_rotations_and_stacks() -> None:
    A = Chain(Cosine(6), Dense(normal(6, 2)), Dense(normal(2, 5)), Cosine(5))
    torch.testing.assert_close(svdvals(A).detach(), torch.linalg.svdvals(A.to_dense().detach()))
    stack = Stack(
        Toeplitz(normal(9), columns=5), Sparse.from_dense(normal(2, 5)), Selection(torch.tensor([1, 1]), size=5)
    )
    torch.testing.assert_close(norm(stack).detach(), torch.linalg.matrix_norm(stack.to_dense().detach()))


def test_refusals() -> None:
    with pytest.raises(Refused, match="no rule for Toeplitz"):
        norm(Toeplitz(normal(9), columns=5), 2)
    with pytest.raises(Refused, match="order=1"):
        norm(Dense(normal(2, 2)), 1)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="NaN"):
        norm(Dense(torch.full((2, 2), torch.nan)))
