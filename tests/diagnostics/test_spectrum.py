"""Numbers of spectra against numpy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eckart.diagnostics.spectrum import spectral_numbers
from eckart.linalg.spectrum import spectrum
from support import hard


@pytest.mark.parametrize("name", sorted(hard.weights()))
def test_numbers_of_hard_matrices(name: str) -> None:
    w = hard.weights()[name]
    if name == "graded-entries":
        with pytest.raises(ValueError, match=r"up to 1e\+300 overflow"):
            spectrum(w)
        return
    s = spectrum(w)
    numbers = spectral_numbers(s)
    values = np.linalg.svd(w.double().numpy(), compute_uv=False)
    assert numbers["sv_max"] == pytest.approx(values[0], rel=1e-12)
    assert numbers["matrix_rank"] == np.linalg.matrix_rank(w.double().numpy())
    assert all(math.isfinite(v) for v in numbers.values() if v is not None)
    if not values[0] > 0:
        assert numbers["entropy"] is numbers["stable_rank"] is numbers["condition"] is None
        return
    p = values / values.sum()
    assert numbers["effective_rank"] == pytest.approx(math.exp(-sum(q * math.log(q) for q in p if q > 0)))
    assert 1 - 1e-12 <= numbers["stable_rank"] <= numbers["matrix_rank"] * (1 + 1e-12)
    held = np.cumsum(values**2) / (values**2).sum()
    assert numbers["rank_90"] == int(np.argmax(held >= 0.9 - 1e-15)) + 1
    assert (numbers["condition"] is None) == (numbers["matrix_rank"] < min(w.shape))


def test_weightwatchers_numbers_written_out() -> None:
    w = hard.normal(12, 30)
    numbers = spectral_numbers(spectrum(w))
    eigenvalues = np.linalg.svd(w.numpy(), compute_uv=False) ** 2
    p = eigenvalues / eigenvalues.sum()
    assert (numbers["N"], numbers["M"], numbers["Q"]) == (30, 12, 2.5)
    assert (numbers["num_evals"], numbers["exact"], numbers["rank_loss"]) == (12, True, 0)
    assert numbers["norm"] == pytest.approx(np.linalg.norm(w.numpy()) ** 2)
    assert numbers["log_norm"] == pytest.approx(math.log10(eigenvalues.sum()))
    assert numbers["spectral_norm"] == numbers["lambda_max"] == pytest.approx(eigenvalues[0])
    assert numbers["log_spectral_norm"] == pytest.approx(math.log10(eigenvalues[0]))
    assert numbers["sv_min"] == pytest.approx(math.sqrt(eigenvalues[-1]))
    assert numbers["entropy"] == pytest.approx(-(p * np.log(p)).sum() / math.log(12))
    assert numbers["condition"] == pytest.approx(np.linalg.cond(w.numpy()))
    assert numbers["rank_99"] == int((np.cumsum(p) < 0.99).sum()) + 1


def test_entropy_counts_equal_directions() -> None:
    assert spectral_numbers(spectrum(torch.eye(7)))["entropy"] == pytest.approx(1)


def test_a_density_is_an_estimate() -> None:
    w = hard.with_spectrum(120, 480, torch.linspace(3, 0.2, 120).double())
    measured, estimated = spectral_numbers(spectrum(w)), spectral_numbers(spectrum(w, exact=10))
    for column, tolerance in (("entropy", 0.02), ("effective_rank", 0.05), ("stable_rank", 1e-3), ("rank_90", 0.05)):
        assert estimated[column] == pytest.approx(measured[column], rel=tolerance)
    assert estimated["sv_min"] is estimated["matrix_rank"] is None
