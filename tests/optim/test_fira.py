"""Fira: its formula written out with an SVD, its limit at full rank, and the limit of what is outside."""

from __future__ import annotations

import torch

from eckart.optim.fira import Fira
from eckart.optim.galore import GaLore
from support.stepping import drawn, stepped


def test_two_steps_written_out() -> None:
    for shape in ((6, 9), (9, 6)):
        weight, grads = drawn(*shape, count=2)
        wide = [g if shape[0] < shape[1] else g.T for g in grads]
        p = torch.linalg.svd(wide[0]).U[:, :2]
        m = v = torch.zeros(2, 9, dtype=torch.float64)
        place, before = weight if shape[0] < shape[1] else weight.T, None
        for step, g in enumerate(wide, 1):
            r = p.T @ g
            m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r**2
            psi = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            outside = (psi.norm(dim=0) / r.norm(dim=0)) * (g - p @ r)
            if before is not None and outside.norm() > 1.01 * before:
                outside = outside * 1.01 * before / outside.norm()
            before = outside.norm()
            place = place - 0.1 * 0.25 * (p @ psi + outside)
        found = stepped(Fira, weight, grads, rank=2, lr=0.1)[-1]
        torch.testing.assert_close(found, place if shape[0] < shape[1] else place.T)


def test_at_full_rank_nothing_is_outside() -> None:
    weight, grads = drawn(4, 7)
    found, galore = (stepped(each, weight, grads, rank=4)[-1] for each in (Fira, GaLore))
    torch.testing.assert_close(found, galore)


def test_what_is_outside_grows_by_a_hundredth_a_step() -> None:
    weight, grads = drawn(6, 9, count=2)
    p = torch.linalg.svd(grads[0]).U[:, :2]
    grads = [grads[0], grads[0] + 100 * (grads[0] - p @ p.T @ grads[0])]
    places = stepped(Fira, weight, grads, rank=2, scale=1.0, lr=1.0)
    steps = [weight - places[0], places[0] - places[1]]
    norms = [float((step - p @ p.T @ step).norm()) for step in steps]
    assert abs(norms[1] / norms[0] - 1.01) < 1e-6
