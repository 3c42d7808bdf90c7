"""What noise explains: the law's median, pure noise, and planted spikes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eckart.diagnostics.contract import Matrix
from eckart.diagnostics.marchenko_pastur import bulk, median, noise
from eckart.errors import Refused
from eckart.linalg.spectrum import spectrum
from support import hard

SHAPES = [(120, 480), (480, 120), (200, 200)]


def pure(out: int, columns: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    return sigma * hard.normal(out, columns, seed=seed)


@pytest.mark.parametrize("beta", [1.0, 0.75, 0.5, 0.1])
def test_median_of_marchenko_pastur(beta: float) -> None:
    w = pure(int(1000 * beta), 1000)
    assert median(beta) == pytest.approx(float((spectrum(w).values / 1000).median()), rel=0.02)


@pytest.mark.parametrize("shape", [*SHAPES, (60, 900)])
@pytest.mark.parametrize("sigma", [1e-3, 5.0])
def test_noise_has_no_spikes(shape: tuple[int, int], sigma: float) -> None:
    counts = []
    for seed in range(8):
        found = bulk(spectrum(pure(*shape, sigma, seed)))
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
    found = bulk(spectrum(pure(*shape) + strong + weak))
    assert found.spikes == 4
    assert found.sigma == pytest.approx(1, rel=0.05)
    assert found.edge == pytest.approx((math.sqrt(shape[0]) + math.sqrt(shape[1])) ** 2, rel=0.1)


def test_columns_written_out() -> None:
    w = pure(80, 120) + 40 * torch.outer(hard.orthogonal(80)[0], hard.orthogonal(120)[0])
    s = spectrum(w)
    numbers = noise(Matrix(w, s))
    sigma = math.sqrt(float(s.values.median() + s.values.sort().values[40]) / 2 / (120 * median(80 / 120)))
    assert numbers["mp_sigma"] == pytest.approx(sigma)
    assert numbers["mp_edge"] == pytest.approx(sigma**2 * (math.sqrt(120) + math.sqrt(80)) ** 2)
    assert numbers["mp_spikes"] == 1
    assert numbers["mp_energy"] == pytest.approx(float(s.values[0] / s.values.sum()))


def test_no_bulk() -> None:
    with pytest.raises(Refused, match="half of the eigenvalues are zero"):
        bulk(spectrum(hard.normal(20, 5) @ hard.normal(5, 20)))
    with pytest.raises(Refused, match="vector"):
        bulk(spectrum(hard.normal(1, 20)))
