"""Denoising of images of many bands: its factors, its bands, and what the prior sees."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators import save
from eckart.estimators.hsi_svd_rrqr import SpectralSubspaceDenoiser, carrying_bands, coefficients_of, right_factors


def cube(rng: np.random.Generator, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """An image 24 x 24 of 15 bands and rank 3, flat in squares, and a noisy one."""
    channels = np.kron(rng.uniform(0, 1, (4, 4, 3)), np.ones((6, 6, 1)))
    clean = channels @ rng.uniform(0, 1, (3, 15))
    return clean, clean + noise * rng.standard_normal(clean.shape)


def error(found: np.ndarray, clean: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - clean).mean()))


def test_a_table_is_put_on_its_singular_vectors() -> None:
    x = np.random.default_rng(0).standard_normal((40, 9))
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    fitted = SpectralSubspaceDenoiser(3).fit(x)
    np.testing.assert_allclose(fitted.transform(x), u[:, :3] * s[:3] @ vh[:3], atol=1e-12)
    np.testing.assert_allclose(SpectralSubspaceDenoiser(9).fit(x).transform(x), x, atol=1e-12)
    for table in (x, x.T):
        np.testing.assert_allclose(right_factors(table)[0], s, rtol=1e-12)


def test_the_bands_carry_the_image_and_are_hardly_less_independent_than_the_best() -> None:
    rng = np.random.default_rng(1)
    clean, _ = cube(rng)
    basis = right_factors(clean.reshape(-1, 15))[1][:, :3]
    bands = carrying_bands(basis)
    found = clean[..., bands] @ coefficients_of(basis, bands).T
    np.testing.assert_allclose(found, clean, atol=1e-10)
    assert np.abs(coefficients_of(basis, bands)).max() <= 1.2 + 1e-9
    volumes = [abs(np.linalg.det(basis[list(three)])) for three in combinations(range(15), 3)]
    assert abs(np.linalg.det(basis[bands])) >= 0.7 * max(volumes)


@pytest.mark.parametrize(("prior", "left"), [("tv", 0.6), ("nlm", 0.75)])
@pytest.mark.parametrize("channels", ["bands", "principal"])
def test_a_prior_takes_away_what_the_subspace_leaves(prior: str, left: float, channels: str) -> None:
    clean, noisy = cube(np.random.default_rng(2))
    plain = SpectralSubspaceDenoiser(prior=None).fit(noisy)
    assert plain.rank_ == 3
    assert plain.noise_ == pytest.approx(0.1, rel=0.1)
    subspace = error(plain.transform(noisy), clean)
    assert subspace < 0.6 * error(noisy, clean)
    smoothed = SpectralSubspaceDenoiser(prior=prior, channels=channels).fit_transform(noisy)
    assert smoothed.shape == clean.shape
    assert error(smoothed, clean) < left * subspace


def test_a_prior_of_ones_own_is_told_the_noise_of_each_channel(tmp_path: Path) -> None:
    _, noisy = cube(np.random.default_rng(3))
    told = []

    def prior(image: np.ndarray, noise: float) -> np.ndarray:
        told.append((image.shape, noise))
        return image

    fitted = SpectralSubspaceDenoiser(3, prior=prior, channels="bands", noise=0.1).fit(noisy)
    plain = SpectralSubspaceDenoiser(3, prior=None).fit(noisy)
    np.testing.assert_allclose(fitted.transform(noisy), plain.transform(noisy), atol=1e-12)
    rng = np.random.default_rng(4)
    noise = 0.1 * rng.standard_normal((20000, 15))
    basis = fitted.components_.T
    drawn = (noise @ basis @ basis.T)[:, fitted.bands_].std(axis=0)
    assert [shape for shape, _ in told] == [(24, 24)] * 3
    np.testing.assert_allclose([level for _, level in told], drawn, rtol=0.05)
    with pytest.raises(Refused, match="function"):
        save(fitted, tmp_path / "fitted")


def test_what_cannot_be_met_is_refused() -> None:
    x = np.eye(6)
    with pytest.raises(Refused, match="rank=7"):
        SpectralSubspaceDenoiser(7).fit(x)
    with pytest.raises(Refused, match="prior='wiener'"):
        SpectralSubspaceDenoiser(prior="wiener").fit(x)
