"""Random rotations: orthogonal, spread out, the same from the same seed."""

from __future__ import annotations

import pytest
import torch

from eckart.structures import apply_transposed
from eckart.structures.rotations import random_rotation
from support import hard


@pytest.mark.parametrize("size", [1, 2, 3, 8, 12, 15, 36, 64])
def test_it_is_orthogonal(size: int) -> None:
    rotation = random_rotation(size, torch.Generator().manual_seed(3))
    dense = rotation.to_dense().detach()
    assert dense.dtype == torch.float64
    torch.testing.assert_close(dense @ dense.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    x = hard.normal(4, size)
    torch.testing.assert_close(rotation(x).detach(), x @ dense.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(apply_transposed(rotation, rotation(x)).detach(), x, rtol=0, atol=1e-12)


def test_powers_of_two_store_signs_alone_and_others_a_small_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    assert random_rotation(64, generator).cost().parameters == 64
    assert random_rotation(576, generator).cost().parameters == 576 + 81


@pytest.mark.parametrize("size", [64, 72])
def test_what_stands_in_one_place_is_spread_over_all(size: int) -> None:
    one = torch.eye(size, dtype=torch.float64)
    assert float(random_rotation(size, torch.Generator().manual_seed(0))(one).detach().abs().max()) < 0.35


def test_the_seed_says_it_all() -> None:
    a, b, c = (random_rotation(24, torch.Generator().manual_seed(seed)).to_dense().detach() for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
