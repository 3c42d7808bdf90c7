"""Spectra and their densities against numpy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.linalg.spectrum import entropy, spectrum
from support import hard


def test_entropy_counts_equal_directions() -> None:
    assert entropy(torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(math.log(2))
    assert entropy(torch.tensor([2.0]), torch.tensor([5.0])) == pytest.approx(math.log(5))
    assert entropy(torch.zeros(3)) == 0


@pytest.mark.parametrize("name", sorted(hard.weights()))
def test_hard_matrices(name: str) -> None:
    w = hard.weights()[name]
    if name == "graded-entries":
        with pytest.raises(Refused, match=r"up to 1e\+300 overflow"):
            spectrum(w)
        return
    s = spectrum(w)
    expected = np.linalg.svd(w.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(s.values.sqrt().numpy(), expected, rtol=1e-9, atol=1e-12 * expected[0])
    assert s.rank == np.linalg.matrix_rank(w.double().numpy())


@pytest.mark.parametrize("name", sorted(hard.refused()))
def test_what_is_not_finite_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NaN or Inf"):
        spectrum(hard.refused()[name])


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a matrix is needed"):
        spectrum(torch.zeros(shape))
