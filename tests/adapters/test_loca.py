"""LoCA against the inverse cosine transform, and its turns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import Tensor

from eckart.structures import Scattered
from eckart.structures.scattered import slopes
from support.one_layer import IN, OUT, RANK, normal, one_layer, only, start, steps, stirred

LAST = torch.tensor([OUT - 1, IN - 1])


def test_loca_is_the_inverse_cosine_transform_of_a_sparse_spectrum() -> None:
    path = start("loca", normal(OUT, IN)).path
    spectrum = only(path, Scattered)
    assert isinstance(spectrum, Scattered)
    assert len(set(zip(*spectrum.places.tolist(), strict=True))) == RANK * (OUT + IN)
    stirred(path)
    dense = np.zeros((OUT, IN))
    dense[tuple(spectrum.places.numpy())] = spectrum.values.detach().numpy()
    expected = torch.from_numpy(idctn(dense, norm="ortho"))
    torch.testing.assert_close(path.to_dense().double(), expected, atol=1e-5, rtol=1e-5)


def test_loca_slopes_are_central_differences_of_the_loss() -> None:
    # A loss linear in the matrix, so that its differences are those of its gradient.
    path = start("loca", normal(OUT, IN)).path
    spectrum = only(path, Scattered)
    assert isinstance(spectrum, Scattered)
    stirred(path)
    x, g = normal(7, IN, seed=8), normal(7, OUT, seed=9)
    seen: list[Tensor] = []
    spectrum.watch = seen.append
    (path(x) * g).sum().backward()
    spectrum.watch = None
    found = slopes(seen[0], spectrum.values.detach(), spectrum.places.long())
    inside = (spectrum.places > 0).all(0) & (spectrum.places.T < LAST).all(1)
    for i in inside.nonzero()[:4, 0].tolist():
        for axis in (0, 1):
            losses = []
            for move in (1, -1):
                moved = copy.deepcopy(path)
                other = only(moved, Scattered)
                assert isinstance(other, Scattered)
                other.places[axis, i] += move
                losses.append((moved(x) * g).sum().item())
            assert float(found[axis, i]) == pytest.approx((losses[0] - losses[1]) / 2, abs=2e-3)


def test_loca_takes_turns() -> None:
    net, adapter = one_layer("loca")
    spectrum = only(adapter.paths["0"], Scattered)
    assert isinstance(spectrum, Scattered)
    history: list[tuple[Tensor, Tensor]] = []

    def note(step: int) -> None:
        history.append((spectrum.values.detach().clone(), spectrum.places.clone()))

    steps(net, adapter, 50, each=note)
    for before, after, step in zip(history, history[1:], range(1, 50), strict=False):
        places_move = 11 <= step <= 20
        assert torch.equal(before[0], after[0]) == places_move
        if not places_move:
            assert torch.equal(before[1], after[1])
    moved = (history[20][1] - history[10][1]).long()
    assert 0.2 < (moved != 0).float().mean() <= 1
    assert moved.abs().max() > 1
    spectrum.check_values()
