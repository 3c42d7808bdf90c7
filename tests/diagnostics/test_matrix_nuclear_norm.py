"""Norms of hidden states against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eckart.diagnostics._hidden_states import standardized
from eckart.diagnostics.matrix_nuclear_norm import matrix_nuclear_norm, nuclear_norm
from eckart.errors import Refused
from support import hard


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (30, 30)])
def test_hidden_states_against_numpy(shape: tuple[int, int]) -> None:
    x = hard.normal(*shape) + 3
    r = x.numpy() - x.numpy().mean(0)
    r /= np.linalg.norm(r, axis=1, keepdims=True)
    assert nuclear_norm(x) == pytest.approx(np.linalg.norm(r, "nuc") / len(r))
    columns = np.sort(np.linalg.norm(r, axis=0))[::-1][: min(shape)]
    assert matrix_nuclear_norm(x) == pytest.approx(columns.sum() / len(r))
    if shape[0] >= shape[1]:
        assert matrix_nuclear_norm(x) >= nuclear_norm(x)


def test_surrogate_is_the_nuclear_norm_of_orthogonal_columns() -> None:
    x = torch.cat([torch.eye(6), -torch.eye(6)]).double()
    assert matrix_nuclear_norm(x) == pytest.approx(nuclear_norm(x))


def test_hidden_states_that_are_the_mean_count_as_nothing() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]])
    assert standardized(x)[2].tolist() == [0, 0]
    for measure in (matrix_nuclear_norm, nuclear_norm):
        assert math.isfinite(measure(x))
        with pytest.raises(Refused, match="all the same"):
            measure(torch.full((4, 3), 0.1))
        with pytest.raises(Refused, match="NaN"):
            measure(torch.full((4, 3), math.nan))
