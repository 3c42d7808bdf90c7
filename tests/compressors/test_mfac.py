"""M-FAC against a dense Fisher matrix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eckart import METHODS, Need
from eckart.compressors import mfac
from eckart.errors import Refused
from eckart.linalg.inverse_fisher import InverseFisher
from support import hard
from support.layers import layer

OUT, COLUMNS, SAMPLES = 6, 5, 9


def problem() -> tuple[Tensor, Tensor, Tensor]:
    return hard.normal(OUT, COLUMNS, seed=1), hard.normal(SAMPLES, COLUMNS, seed=2), hard.normal(SAMPLES, OUT, seed=3)


def fishers(x: Tensor, g: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    """F of some rows at a time from outer products of gradients, and its inverse by the paper's recursion (eq. 2)."""
    found = []
    for first in range(0, OUT, rows):
        each = [torch.outer(g[t, first : first + rows], x[t]).flatten() for t in range(SAMPLES)]
        identity = torch.eye(len(each[0])).double()
        inverse = identity / mfac.damping_of(x, g)
        for v in each:
            u = inverse @ v
            inverse = inverse - torch.outer(u, u) / (SAMPLES + v @ u)
        fisher = sum(torch.outer(v, v) for v in each) / SAMPLES + mfac.damping_of(x, g) * identity
        torch.testing.assert_close(fisher @ inverse, identity, rtol=0, atol=1e-9)
        found.append((fisher, inverse))
    return found


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_what_is_kept_and_what_it_becomes(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mfac, "BLOCK", rows * COLUMNS)
    weight, x, g = problem()
    dense = fishers(x, g, rows)
    diagonal = torch.cat([inverse.diagonal() for _, inverse in dense]).view_as(weight)
    torch.testing.assert_close(mfac.saliencies(weight, x, g), weight.square() / (2 * diagonal), rtol=1e-9, atol=0)
    kept = hard.normal(OUT, COLUMNS, seed=4) > 0
    found = mfac.made_up(weight, kept, x, g)
    assert torch.equal(found != 0, kept)
    for i, (fisher, _) in enumerate(dense):
        part = slice(i * rows, (i + 1) * rows)
        here, stay = weight[part].flatten(), kept[part].flatten()
        best = torch.linalg.solve(fisher[stay][:, stay], fisher[stay] @ here)
        torch.testing.assert_close(found[part].flatten()[stay], best, rtol=1e-8, atol=1e-12)
        gradients = (g[:, part, None] * x[:, None, :]).flatten(1)
        by_surgery = InverseFisher(gradients, mfac.damping_of(x, g)).without(here, (~stay).nonzero()[:, 0])
        torch.testing.assert_close(found[part].flatten(), by_surgery, rtol=1e-8, atol=1e-12)


def test_without_gradients_it_is_magnitude() -> None:
    weight, _, statistics = layer(8, 12)
    silent = replace(statistics, gradient_pairs=0 * statistics.get(Need.GRADIENT_PAIRS))
    one, other = (METHODS[name].entry(weight, silent).build(50).structure for name in ("mfac", "magnitude"))
    assert torch.equal(one.to_dense(), other.to_dense())


def test_it_costs_less_than_cutting_off_what_is_small() -> None:
    weight, _, statistics = layer(24, 32)
    ours, theirs = (
        METHODS[name].entry(weight, statistics).build(50).structure.to_dense() for name in ("mfac", "wanda")
    )
    x, g = mfac.sides(weight, statistics.get(Need.GRADIENT_PAIRS))

    def rise(pruned: Tensor) -> float:
        return float(torch.einsum("to,oi,ti->t", g, weight - pruned, x).square().mean().detach())

    assert rise(ours) < 0.5 * rise(theirs)


def test_pairs_of_another_matrix_are_refused() -> None:
    weight, _, statistics = layer(8, 12)
    with pytest.raises(Refused, match=r"gradient_pairs of shape \(96, 19\) do not fit a weight of shape \(8, 12\)"):
        METHODS["mfac"].entry(weight, replace(statistics, gradient_pairs=statistics.get(Need.GRADIENT_PAIRS)[:, 1:]))
