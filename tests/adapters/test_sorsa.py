"""SORSA against the SVD, and its regulariser."""

from __future__ import annotations

import torch

from eckart.adapters._svd_form import orthonormality, triplets
from support import hard
from support.adapting import adapted
from support.starts import SHAPES, assert_triplets
from support.tiny import tiny_llama


@SHAPES
def test_all_parts_of_the_first_triplets_train(shape: tuple[int, int]) -> None:
    path = assert_triplets("sorsa", shape, leading=True)
    assert [p.numel() for p in path.parameters() if p.requires_grad] == [3 * shape[0], 3, 3 * shape[1]]


def test_the_regulariser_is_the_distance_from_orthonormal() -> None:
    left, right = hard.normal(6, 2), hard.normal(2, 5)
    paths = {"a": triplets(left, torch.ones(2).double(), right)}
    expected = ((left.T @ left - torch.eye(2)).norm() + (right @ right.T - torch.eye(2)).norm()) / 2
    torch.testing.assert_close(orthonormality(paths).detach(), expected)
    model = tiny_llama()
    adapter = adapted(model, "sorsa")
    # Singular vectors are orthonormal, and the gradient of the norm at its minimum is finite.
    assert float(adapter.regulariser()) < 1e-8
    adapter.regulariser().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in adapter.trainable_parameters() if p.grad is not None)
