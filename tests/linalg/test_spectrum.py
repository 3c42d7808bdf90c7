"""Spectra against numpy and closed forms: numbers, densities, and what noise explains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eckart.diagnostics.marchenko_pastur import bulk, median
from eckart.linalg.spectral_density import spectral_density
from eckart.linalg.spectrum import Spectrum, entropy, spectral_numbers, spectrum
from support import hard

SHAPES = [(120, 480), (480, 120), (200, 200)]


def noise(out: int, columns: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    return sigma * hard.normal(out, columns, seed=seed)


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


def test_entropy_counts_equal_directions() -> None:
    assert spectral_numbers(spectrum(torch.eye(7)))["entropy"] == pytest.approx(1)
    assert entropy(torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(math.log(2))
    assert entropy(torch.tensor([2.0]), torch.tensor([5.0])) == pytest.approx(math.log(5))
    assert entropy(torch.zeros(3)) == 0


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
    measured, estimated = spectral_numbers(exact), spectral_numbers(density)
    for column, tolerance in (("entropy", 0.02), ("effective_rank", 0.05), ("stable_rank", 1e-3), ("rank_90", 0.05)):
        assert estimated[column] == pytest.approx(measured[column], rel=tolerance)
    assert estimated["sv_min"] is estimated["matrix_rank"] is None


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


@pytest.mark.parametrize("beta", [1.0, 0.75, 0.5, 0.1])
def test_median_of_marchenko_pastur(beta: float) -> None:
    w = noise(int(1000 * beta), 1000)
    assert median(beta) == pytest.approx(float((spectrum(w).values / 1000).median()), rel=0.02)


@pytest.mark.parametrize("shape", [*SHAPES, (60, 900)])
@pytest.mark.parametrize("sigma", [1e-3, 5.0])
def test_noise_has_no_spikes(shape: tuple[int, int], sigma: float) -> None:
    counts = []
    for seed in range(8):
        found = bulk(spectrum(noise(*shape, sigma, seed)))
        assert found.sigma == pytest.approx(sigma, rel=0.03)
        counts.append(found.spikes)
    assert sum(counts) <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_planted_spikes_are_counted(shape: tuple[int, int]) -> None:
    """A spike of strength t shows above the bulk where t > sigma (N M)^(1/4) (Baik, Ben Arous and Peche)."""
    threshold = (shape[0] * shape[1]) ** 0.25
    u, v = hard.orthogonal(shape[0], 5), hard.orthogonal(shape[1], 6)
    strong = u[:, :4] * torch.tensor([3.0, 2.5, 2.2, 2.0]).double() * threshold @ v[:, :4].T
    weak = 0.5 * threshold * u[:, 4:8] @ v[:, 4:8].T
    found = bulk(spectrum(noise(*shape) + strong + weak))
    assert found.spikes == 4
    assert found.sigma == pytest.approx(1, rel=0.05)
    assert found.edge == pytest.approx((math.sqrt(shape[0]) + math.sqrt(shape[1])) ** 2, rel=0.1)


def test_no_bulk() -> None:
    with pytest.raises(ValueError, match="half of the eigenvalues are zero"):
        bulk(spectrum(hard.normal(20, 5) @ hard.normal(5, 20)))
    with pytest.raises(ValueError, match="vector"):
        bulk(spectrum(hard.normal(1, 20)))


@pytest.mark.parametrize("name", sorted(hard.refused()))
def test_what_is_not_finite_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NaN or Inf"):
        spectrum(hard.refused()[name])


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a matrix is needed"):
        spectrum(torch.zeros(shape))
