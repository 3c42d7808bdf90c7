"""Q-GaLore: four bits a number of P, angles of whole subspaces, and looks that become rarer."""

from __future__ import annotations

import torch

from eckart.optim.galore import GaLore
from eckart.optim.q_galore import QGaLore, in_eight_bits, overlap, pack_basis, unpack_basis
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


def test_weights_in_eight_bits_are_on_a_grid_and_keep_their_mean() -> None:
    weight = torch.randn(6, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([in_eight_bits(weight, generator) for _ in range(400)])
    width = (weight.reshape(-1)[:256].amax() - weight.reshape(-1)[:256].amin()) / 255
    codes = (drawn[0].reshape(-1)[:256] - weight.reshape(-1)[:256].amin()) / width
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-9)
    assert float((drawn - weight).abs().amax()) <= 0.05
    assert float((drawn.mean(0) - weight).abs().amax()) < 4 * 0.5 * 0.03 / 400**0.5
    constant = torch.full((2, 3), 0.1)
    assert torch.equal(in_eight_bits(constant, generator), constant)


def test_a_step_ends_on_the_grid_and_is_resumed_bit_for_bit() -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(16, 32), torch.randn(4, 16, 32)

    def run(parameter: torch.nn.Parameter, optimizer: QGaLore, part: torch.Tensor) -> None:
        for grad in part:
            parameter.grad = grad
            optimizer.step()

    whole = torch.nn.Parameter(start.clone())
    run(whole, QGaLore([whole], rank=4, weight_bits=8), grads)
    assert len(whole.detach().reshape(-1)[:256].unique()) <= 256
    first = torch.nn.Parameter(start.clone())
    before = QGaLore([first], rank=4, weight_bits=8)
    run(first, before, grads[:2])
    second = torch.nn.Parameter(first.detach().clone())
    after = QGaLore([second], rank=4, weight_bits=8)
    after.load_state_dict(before.state_dict())
    run(second, after, grads[2:])
    assert torch.equal(second, whole)
