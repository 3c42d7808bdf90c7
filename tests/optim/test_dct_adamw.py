"""DCT-AdamW: its basis, its choice, moments that move with their columns, and what is known at full rank."""

from __future__ import annotations

import pytest
import scipy.fft
import torch

from eckart.optim._subspace import cosines
from eckart.optim.dct_adamw import DctAdamW, carried, chosen
from support.stepping import drawn, rotation, stepped


def test_the_basis_is_the_cosine_transform() -> None:
    x = rotation(7)
    torch.testing.assert_close(x @ cosines(7), torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho", axis=1)))


@pytest.mark.parametrize("basis", ["dct", "identity", "random"])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_at_full_rank_it_is_adam_in_the_basis(basis: str, shape: tuple[int, int]) -> None:
    weight, grads = drawn(*shape)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = DctAdamW([parameter], rank=9, basis=basis, lr=0.01)
    q = optimizer._basis(grads[0] if shape[0] > shape[1] else grads[0].T, optimizer.param_groups[0])
    q = torch.eye(5).double() if q is None else q
    torch.testing.assert_close(q.T @ q, torch.eye(5).double())

    def inside(x: torch.Tensor) -> torch.Tensor:
        return x @ q if shape[0] > shape[1] else q.T @ x

    turned = torch.nn.Parameter(inside(weight))
    adam = torch.optim.Adam([turned], lr=0.01)
    for grad in grads:
        parameter.grad, turned.grad = grad, inside(grad)
        optimizer.step()
        adam.step()
    torch.testing.assert_close(inside(parameter.detach()), turned.detach())


def test_moments_move_as_the_rotation_says() -> None:
    q = rotation(8)
    old, new = torch.tensor([0, 2, 5, 7]), torch.tensor([1, 2, 4, 7])
    m = drawn(6, 4)[0]
    state = {"index": old, "count": torch.tensor([3.0, 4.0, 5.0, 6.0]), "m": m, "v": m.square()}
    carried(state, new)
    torch.testing.assert_close(state["m"], m @ (q[:, old].T @ q[:, new]))
    assert state["count"].tolist() == [0, 4, 0, 6]
    torch.testing.assert_close(state["v"], state["m"].square())


def test_the_best_columns_are_chosen_by_l2() -> None:
    coordinates = torch.tensor([[3.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    assert chosen(coordinates, 1, 2).tolist() == [0]
    assert chosen(coordinates, 1, 1).tolist() == [2]


def test_a_column_that_comes_late_steps_no_farther_than_the_rate() -> None:
    weight = torch.zeros(4, 6, dtype=torch.float64)
    early, late = torch.zeros_like(weight), torch.zeros_like(weight)
    early[0], late[1] = 1.0, 1.0
    places = stepped(DctAdamW, weight, [early] * 500 + [late], rank=1, basis="identity", lr=0.1)
    torch.testing.assert_close(places[-1][1], torch.full((6,), -0.1, dtype=torch.float64))


def test_feedback_hands_over_what_was_left_out() -> None:
    weight, (grad,) = drawn(4, 6, count=1)
    zero = torch.zeros_like(grad)
    parameter = torch.nn.Parameter(weight)
    optimizer = DctAdamW([parameter], rank=1, feedback=True)
    q, left = cosines(4), grad
    for each in (grad, zero, zero, zero):
        parameter.grad = each
        optimizer.step()
        state = optimizer.state[parameter]["matrix0"]
        i = state["index"]
        left = left - q[:, i] @ (q[:, i].T @ left)
        torch.testing.assert_close(state["error"].T, left)
    torch.testing.assert_close(state["error"], zero.T, rtol=0, atol=1e-12)
