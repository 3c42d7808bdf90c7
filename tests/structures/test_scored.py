"""Entries that are chosen by scores."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad

from eckart.errors import Refused
from eckart.structures import Dense, Scored
from support import hard


@pytest.mark.parametrize("magnitudes", [True, False])
def test_the_largest_scores_act_and_gradients_go_straight_through(magnitudes: bool) -> None:
    w, t, g = (hard.normal(6, 9, seed=i) for i in range(3))
    structure = Scored(Dense(w), Dense(t), torch.tensor([20]), magnitudes=magnitudes)
    score = w.abs() + t if magnitudes else t
    mask = torch.zeros(54, dtype=torch.bool).scatter_(0, score.flatten().topk(20).indices, True).view(6, 9)
    assert torch.equal(structure.to_dense().detach(), w * mask)
    of_w, of_t = grad((structure.to_dense() * g).sum(), list(structure.parameters()))
    torch.testing.assert_close(of_t, g * w)
    torch.testing.assert_close(of_w, g * mask + (w.sign() * g * w if magnitudes else 0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(structure.to_dense().detach(), w * mask)


def test_of_equal_scores_the_first_act_and_impossible_numbers_are_refused() -> None:
    ones = Dense(torch.ones(3, 4))
    for kept in (1, 5, 12):
        assert torch.equal(
            Scored(ones, ones, torch.tensor([kept])).to_dense().flatten(), (torch.arange(12) < kept) * 1.0
        )
    with pytest.raises(Refused, match=r"kept is 0, outside 1\.\.12"):
        Scored(ones, ones, torch.tensor([0])).check_values()
    with pytest.raises(Refused, match=r"scores \(4, 3\) are not of the matrix \(3, 4\)"):
        Scored(ones, Dense(torch.ones(4, 3)), torch.tensor([2]))
    with pytest.raises(TypeError, match="wrap a tensor in Dense"):
        Scored(torch.ones(3, 4), ones, torch.tensor([2]))  # type: ignore[arg-type]
