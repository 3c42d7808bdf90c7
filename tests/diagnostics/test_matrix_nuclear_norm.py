"""Norms of hidden states against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eckart.diagnostics._hidden_states import column_norms, standardized
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_columns_are_those_of_the_standardized_states(dtype: torch.dtype) -> None:
    """Of more states than are worked on at a time, one of them the mean up to rounding, and not contiguous."""
    x = (hard.normal(700, 301) + 3).to(dtype).T
    x = torch.cat([x, x.double().mean(0, keepdim=True).to(dtype)]) if dtype == torch.float64 else x
    assert not x.is_contiguous() or dtype == torch.float64
    r = x.double().numpy() - x.double().numpy().mean(0)
    r = r[:301] / np.linalg.norm(r[:301], axis=1, keepdims=True)
    assert np.allclose(column_norms(x).numpy(), np.linalg.norm(r, axis=0), rtol=1e-12, atol=0)
    assert np.allclose(standardized(x)[:301].numpy(), r, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_no_scale_is_too_large_or_too_small(scale: float) -> None:
    x = hard.normal(30, 20) + 1
    for measure in (matrix_nuclear_norm, nuclear_norm):
        assert measure(x * scale) == pytest.approx(measure(x), rel=1e-12)
    with pytest.raises(Refused, match="all the same"):
        matrix_nuclear_norm(torch.zeros(4, 3))
    with pytest.raises(Refused, match="NaN or Inf"):
        matrix_nuclear_norm(torch.tensor([[1.0, -torch.inf], [0.0, 1.0]]))
    with pytest.raises(Refused, match=r"shape \(0, 3\)"):
        matrix_nuclear_norm(torch.empty(0, 3))
