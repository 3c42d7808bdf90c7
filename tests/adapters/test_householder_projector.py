"""The Householder projector: the principal part of W, whose singular vectors turn and whose singular values stay."""

from __future__ import annotations

import pytest
import torch

from eckart.adapters.householder_projector import reflections
from eckart.structures import Chain, Diagonal, Householder
from support import hard
from support.one_layer import normal, one_layer, only, steps, stirred
from support.starts import RANK, SHAPES, assert_triplets


@SHAPES
def test_it_starts_from_the_principal_part_and_keeps_its_singular_values(shape: tuple[int, int]) -> None:
    path = assert_triplets("householder-projector", shape, leading=True)
    assert isinstance(path, Chain)
    s = torch.linalg.svdvals(hard.normal(*shape))[:RANK]
    stirred(path)
    moved = path.to_dense().detach()
    torch.testing.assert_close(torch.linalg.svdvals(moved)[:RANK], s)
    assert torch.linalg.matrix_rank(moved) == RANK
    left, right = path.operands()[0], path.operands()[-1]
    for reflector, n in ((left, shape[0]), (right, shape[1])):
        dense = reflector.to_dense().detach()
        torch.testing.assert_close(dense @ dense.T, torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("rank", [1, 2, 7])
def test_reflections_make_the_basis(n: int, rank: int) -> None:
    if rank > n:
        return
    drawn = torch.linalg.qr(hard.normal(n, n)).Q[:, :rank]
    # Columns of the identity, of either sign, need no turning, and columns in another order turn by a right angle.
    unit = torch.eye(n, dtype=torch.float64)
    for basis in (drawn, unit[:, :rank], -unit[:, :rank], unit.flip(1)[:, :rank]):
        vectors, signs = reflections(basis)
        torch.testing.assert_close(vectors.norm(dim=1), torch.full((rank,), float(n), dtype=torch.float64).sqrt())
        product = unit
        for v in vectors:
            product = product @ (unit - 2 * torch.outer(v, v) / (v @ v))
        torch.testing.assert_close(product[:, :rank] * signs, basis)
        # Nor is it another matrix than the structure makes of the vectors.
        torch.testing.assert_close(Householder(vectors).to_dense().detach(), product)


def test_only_the_vectors_train() -> None:
    net, adapter = one_layer("householder-projector", rank=3)
    path = adapter.paths["0"]
    assert [p.requires_grad for p in only(path, Diagonal).parameters()] == [False]
    assert sum(p.numel() for p in adapter.trainable_parameters()) == 3 * sum(path.shape)
    x, y = normal(64, path.shape[1], seed=2), normal(64, path.shape[0], seed=3)
    before = float((net(x) - y).square().mean().detach())
    spectrum = torch.linalg.svdvals(path.to_dense().detach())
    steps(net, adapter, 20)
    assert float((net(x) - y).square().mean().detach()) < before
    torch.testing.assert_close(torch.linalg.svdvals(path.to_dense().detach()), spectrum, atol=1e-4, rtol=1e-5)
