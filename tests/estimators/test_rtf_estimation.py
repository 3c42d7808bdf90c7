"""Relative transfer functions against generalised eigenvectors of whole covariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.signal import stft

from eckart.errors import Refused
from eckart.estimators.rtf_estimation import excess, in_phase, relative_transfer_functions


def white(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize(("frames", "loading"), [(30, 0.0), (30, 0.2), (4, 0.2)])
def test_the_excess_is_that_of_the_generalised_eigenvectors(frames: int, loading: float) -> None:
    rng = np.random.default_rng(0)
    y, v = white(rng, 8, frames), 0.7 * white(rng, 8, frames)
    noise = v @ v.conj().T + loading * np.eye(8)
    values, w = eigh(y @ y.conj().T, noise)
    side = noise @ w
    whole = (side * np.maximum(values - 1, 0)) @ side.conj().T
    low = excess(y, v, loading, 8)
    np.testing.assert_allclose(low @ low.conj().T, whole, atol=1e-9 * np.abs(whole).max())
    largest = np.sort(values)[::-1][:2]
    side = side[:, np.argsort(values)[::-1][:2]]
    low = excess(y, v, loading, 2)
    np.testing.assert_allclose(low @ low.conj().T, (side * np.maximum(largest - 1, 0)) @ side.conj().T, atol=1e-9)


def test_both_ways_are_the_formulas_by_whole_covariances() -> None:
    rng = np.random.default_rng(1)
    m, f, t = 3, 4, 25
    y, v = white(rng, m, f, t) + 2 * white(rng, m, f, 1) * white(rng, 1, 1, t), white(rng, m, f, t)
    wide = relative_transfer_functions(y, v, method="svd-direct", loading=0.3, reference=1).value
    flat = [x.transpose(1, 0, 2).reshape(m * f, t) / t**0.5 for x in (y, v)]
    noise = flat[1] @ flat[1].conj().T
    noise += 0.3 * np.trace(noise).real / (m * f) * np.eye(m * f)
    values, w = eigh(flat[0] @ flat[0].conj().T, noise)
    kept = np.argsort(values)[::-1][:f]
    side = (noise @ w)[:, kept]
    source = (side * np.maximum(values[kept] - 1, 0)) @ side.conj().T
    narrow = relative_transfer_functions(y, v, method="cw", reference=1).value
    for k in range(f):
        direct = np.linalg.svd(source[k * m : (k + 1) * m])[0][:, 0]
        np.testing.assert_allclose(wide[:, k], direct / direct[1], rtol=1e-7)
        covariance = v[:, k] @ v[:, k].conj().T
        leading = covariance @ eigh(y[:, k] @ y[:, k].conj().T, covariance)[1][:, -1]
        np.testing.assert_allclose(narrow[:, k], leading / leading[1], rtol=1e-7)


def test_a_tone_is_still_once_its_phases_are_counted_from_one_moment() -> None:
    x = np.cos(2 * np.pi * 5 / 64 * np.arange(2000))
    frames = stft(x, nperseg=64, noverlap=48, boundary=None, padded=False, return_onesided=False)[2]
    still = in_phase(frames[None, 3:8], 16, 64, np.arange(3, 8))[0]
    np.testing.assert_allclose(still[2], still[2, :1].repeat(still.shape[1]), atol=1e-10)
    assert np.abs(frames[5] - frames[5, :1]).max() > 0.1


def test_bins_that_move_together_help_each_other() -> None:
    rng = np.random.default_rng(2)
    a = white(rng, 3, 12)
    a /= a[0]
    errors = []
    for source in (white(rng, 12, 1) * white(rng, 1, 40), white(rng, 12, 40)):
        noisy, noise = a[:, :, None] * source + 2 * white(rng, 3, 12, 40), 2 * white(rng, 3, 12, 40)
        errors.append(
            [
                np.linalg.norm(relative_transfer_functions(noisy, noise, method=way).value - a)  # type: ignore[arg-type]
                for way in ("svd-direct", "cw")
            ]
        )
    assert errors[0][0] < 0.7 * errors[0][1]


def test_what_cannot_be_solved_is_refused() -> None:
    rng = np.random.default_rng(3)
    y, v = white(rng, 3, 4, 20), white(rng, 3, 4, 2)
    with pytest.raises(Refused, match="from 2 frames is singular"):
        relative_transfer_functions(y, v, method="cw")
    assert np.isfinite(relative_transfer_functions(y, v, method="cw", loading=0.1).value).all()
    with pytest.raises(Refused, match="nothing above the noise"):
        relative_transfer_functions(0 * y, white(rng, 3, 4, 20))
    with pytest.raises(Refused, match="reference=3"):
        relative_transfer_functions(y, v, reference=3)
    with pytest.raises(Refused, match="same M and F"):
        relative_transfer_functions(y, v[:2])
