"""Curves of energy against truncated products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.diagnostics.contract import Matrix
from eckart.diagnostics.energy import POINTS, energy_by_rank
from eckart.errors import Refused
from eckart.linalg.spectrum import spectrum
from support import hard


@pytest.mark.parametrize("shape", [(9, 14), (200, 150), (1, 5)])
def test_one_minus_the_energy_is_the_error_of_the_best_approximation(shape: tuple[int, int]) -> None:
    w = hard.normal(*shape)
    numbers = energy_by_rank(Matrix(w, spectrum(w)))
    u, s, vt = np.linalg.svd(w.numpy(), full_matrices=False)
    ranks = numbers["curve_ranks"]
    assert (ranks[0], ranks[-1], len(ranks)) == (1, min(shape), min(POINTS, *shape))
    assert numbers["singular_values"] == pytest.approx([s[r - 1] for r in ranks])
    for rank, share in zip(ranks, numbers["energy"], strict=True):
        error = np.linalg.norm(w.numpy() - u[:, :rank] * s[:rank] @ vt[:rank]) ** 2
        assert 1 - share == pytest.approx(error / np.linalg.norm(w.numpy()) ** 2, abs=1e-12)


def test_of_nothing_there_are_no_shares() -> None:
    with pytest.raises(Refused, match="all entries are zero"):
        energy_by_rank(Matrix(torch.zeros(3, 4), spectrum(torch.zeros(3, 4))))
