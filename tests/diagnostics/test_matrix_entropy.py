"""Entropy of hidden states against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eckart.diagnostics.matrix_entropy import matrix_entropy
from eckart.errors import Refused
from support import hard


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (30, 30)])
def test_against_numpy(shape: tuple[int, int]) -> None:
    x = hard.normal(*shape) + 3
    r = x.numpy() - x.numpy().mean(0)
    r /= np.linalg.norm(r, axis=1, keepdims=True)
    p = np.linalg.eigvalsh(r.T @ r / len(r))
    p = p[p > 1e-14]
    assert matrix_entropy(x) == pytest.approx(-(p * np.log(p)).sum() / math.log(shape[1]))


def test_directions_that_are_used_alike() -> None:
    assert matrix_entropy(torch.cat([torch.eye(6), -torch.eye(6)]).double()) == pytest.approx(1)
    assert matrix_entropy(torch.tensor([[1.0], [2.0]])) == 0


def test_states_without_directions() -> None:
    with pytest.raises(Refused, match="all the same"):
        matrix_entropy(torch.full((4, 3), 0.1))
    with pytest.raises(Refused, match="NaN"):
        matrix_entropy(torch.full((4, 3), math.nan))
