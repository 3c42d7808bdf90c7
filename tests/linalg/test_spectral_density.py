"""Densities by the Lanczos process against the spectrum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.linalg.spectral_density import spectral_density
from eckart.linalg.spectrum import Spectrum, spectrum
from support import hard

SHAPES = [(120, 480), (480, 120), (200, 200)]


def noise(out: int, columns: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    return sigma * hard.normal(out, columns, seed=seed)


def quantiles(s: Spectrum, shares: Tensor) -> Tensor:
    return s.at(shares * (s.shorter - 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["noise", "decaying", "planted"])
def test_density_agrees_with_the_spectrum(shape: tuple[int, int], kind: str) -> None:
    values = torch.linspace(3, 0.2, min(shape)).double()
    made = {
        "noise": noise(*shape),
        "decaying": hard.with_spectrum(*shape, values),
        "planted": noise(*shape) + 60 * torch.outer(hard.orthogonal(shape[0])[0], hard.orthogonal(shape[1])[0]),
    }
    exact, density = spectrum(made[kind]), spectrum(made[kind], exact=10)
    assert not density.exact
    assert float(density.weights.sum()) == pytest.approx(min(shape))
    assert density.largest == pytest.approx(exact.largest, rel=1e-3)
    assert density.norm == pytest.approx(exact.norm)
    shares = torch.linspace(0.1, 0.9, 9).double()
    bulk_width = float(quantiles(exact, torch.tensor([0.05, 0.95])).diff().abs())
    assert (quantiles(exact, shares) - quantiles(density, shares)).abs().max() < 0.1 * bulk_width


def test_density_of_all_steps_is_exact_in_its_moments() -> None:
    w = hard.with_spectrum(12, 20, torch.linspace(2, 1, 12).double())
    nodes, weights = spectral_density(w, probes=4000)
    for power in (1, 2, 3):
        exact = (spectrum(w).values ** power).mean()
        assert float(weights @ nodes**power) == pytest.approx(float(exact), rel=5e-3)


@pytest.mark.parametrize("matrix", [torch.zeros(30, 40), torch.ones(30, 40), torch.eye(30)])
def test_lanczos_ends_in_an_invariant_subspace(matrix: Tensor) -> None:
    nodes, weights = spectral_density(matrix, probes=3)
    assert torch.isfinite(nodes).all()
    assert float(weights.sum()) == pytest.approx(1)
    values = torch.linalg.svdvals(matrix.double()).square()
    assert float(nodes[-1]) == pytest.approx(float(values[0]), rel=1e-5, abs=1e-12)
    occupied = nodes[weights > 1e-6]
    assert all(float((values - node).abs().min()) < 1e-3 * max(1.0, float(values[0])) for node in occupied)
