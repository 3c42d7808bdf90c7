"""Q-GaLore: four bits a number of P, angles of whole subspaces, and looks that become rarer."""

from __future__ import annotations

import torch

from eckart.optim.galore import GaLore
from eckart.optim.q_galore import QGaLore, overlap, pack_basis, unpack_basis
from support.stepping import drawn, rotation, stepped


def test_a_basis_takes_half_a_byte_a_number_and_is_off_by_half_a_step() -> None:
    basis = rotation(64)[:, :24].float()
    packed, grid = pack_basis(basis)
    assert packed.numel() == 64 * 24 // 2
    found = unpack_basis(packed, grid, (64, 24))
    steps = (basis.reshape(-1, 256).amax(1) - basis.reshape(-1, 256).amin(1)) / 15
    assert ((found - basis).reshape(-1, 256).abs() <= steps[:, None] / 2 + 1e-6).all()


def test_the_overlap_is_that_of_the_subspaces_whatever_their_bases() -> None:
    first, turn = rotation(9)[:, :3], rotation(3)
    assert abs(float(overlap(first, -first @ turn)) - 1) < 1e-12
    assert abs(float(overlap(first, rotation(9)[:, 3:6]))) < 1e-12
    half = torch.cat([first[:, :1], rotation(9)[:, 3:5]], 1)
    assert abs(float(overlap(first, half)) - 1 / 3) < 1e-12


def looks(grads: list[torch.Tensor]) -> list[int]:
    """The steps at which another P is found, with two steps between looks at first."""
    parameter = torch.nn.Parameter(torch.zeros(12, 9))
    optimizer, found, due = QGaLore([parameter], rank=2, every=2), [], 1
    for step, grad in enumerate(grads, 1):
        parameter.grad = grad
        optimizer.step()
        state = optimizer.state[parameter]["matrix0"]
        if int(state["due"]) != due:
            found.append(step)
        due = int(state["due"])
    return found


def test_a_subspace_that_lasts_is_looked_for_half_as_often() -> None:
    grad = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    # Five overlaps after six looks; then the gap is four, and eight.
    assert looks([grad] * 30) == [1, 3, 5, 7, 9, 11, 15, 23]
    generator = torch.Generator().manual_seed(1)
    changing = [torch.randn(12, 9, generator=generator) for _ in range(30)]
    assert looks(changing) == list(range(1, 31, 2))


def test_it_goes_nearly_the_way_of_galore() -> None:
    weight, grads = drawn(96, 64, count=4)
    weight, grads = weight.float(), [g.float() for g in grads]
    found, galore = (stepped(each, weight, grads, rank=48, scale=1.0)[-1] - weight for each in (QGaLore, GaLore))
    assert float((found - galore).norm() / galore.norm()) < 0.3
