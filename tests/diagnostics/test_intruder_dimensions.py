"""Intruder dimensions: planted ones are found, and scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.diagnostics.contract import Change
from eckart.diagnostics.intruder_dimensions import find_intruders, mitigate, new_directions
from eckart.errors import Refused
from support import hard
from support.changes import planted


@pytest.mark.parametrize("count", [0, 1, 3])
def test_planted_intruders_are_found(count: int) -> None:
    base, tuned = planted(count)
    numbers = new_directions(Change(base, tuned))
    assert numbers["intruders"] == count
    assert sum(cosine < 0.5 for cosine in numbers["cosines"]) == count


def test_cosines_are_those_of_all_pairs() -> None:
    base, tuned = hard.normal(20, 12), hard.normal(20, 12, seed=1)
    u0, u1 = (np.linalg.svd(w.numpy(), full_matrices=False)[0] for w in (base, tuned))
    expected = np.abs(u1[:, :5].T @ u0).max(1)
    found = find_intruders(Change(base, tuned), k=5, threshold=0.6)
    assert np.allclose(found.cosines, expected)
    assert found.index.tolist() == [i for i in range(5) if expected[i] < 0.6]


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_mitigation_scales_the_intruders_and_nothing_else(scale: float) -> None:
    base, tuned = planted(2)
    changed, count = mitigate(base, tuned, scale)
    assert count == 2
    found = find_intruders(Change(base, tuned))
    new, old = found.left[:, found.index], found.values[found.index]
    torch.testing.assert_close(new.T @ changed, scale * (new.T @ tuned))
    torch.testing.assert_close(changed - new @ (new.T @ changed), tuned - new @ (new.T @ tuned))
    kept = torch.linalg.svdvals(changed)
    assert all(float((kept - scale * s).abs().min()) < 1e-9 for s in old)


def test_bad_options() -> None:
    w = hard.normal(6, 5)
    with pytest.raises(Refused, match="k=0"):
        find_intruders(Change(w, w), k=0)
    with pytest.raises(Refused, match=r"scale=1\.5"):
        mitigate(w, w, 1.5)
