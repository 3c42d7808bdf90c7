"""Harmonics: stages of PLAIN, orders, standard errors, and what compression hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.plain_isac import compressed, doubtful, harmonics, matched
from eckart.linalg.exponentials import exponentials


def scene(w: np.ndarray, c: np.ndarray, shape: tuple[int, ...], noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = sum(
        amplitude
        * np.einsum("a,b,c->abc", *[exponentials(each[None], n)[:, 0] for each, n in zip(p, shape, strict=True)])
        for p, amplitude in zip(w, c, strict=True)
    )
    return found + noise * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 2**0.5


# Two of the three share a frequency in the first mode, another two in the second.
W = np.array([[0.5, -0.3, 0.2], [0.5, 0.6, -0.15], [-0.9, 0.6, 0.05]])
C = np.array([1.0, 0.7j, -0.5])


def test_compression_is_the_mean_over_blocks() -> None:
    t = np.random.default_rng(0).standard_normal((5, 7))
    found = compressed(t, (2, 3))
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[1, 0], t[2:4, :3].mean())


def test_paths_that_share_frequencies_are_paired_and_counted() -> None:
    tensor = scene(W, C, (8, 12, 24), 0.1)
    found = harmonics(tensor, (1, 1, 3))
    assert found.converged
    assert found.value.frequencies.shape == (3, 3)
    assert (np.abs(found.value.frequencies - W) < 5 * found.error).all()
    np.testing.assert_allclose(found.value.amplitudes, C, atol=0.05)
    rough = harmonics(tensor, (1, 1, 3), 3, refine=False).value.frequencies
    assert 0 < np.abs(rough - W).max() < 0.1
    plain = harmonics(torch.from_numpy(tensor), (1, 1, 3))
    assert isinstance(plain.value.amplitudes, torch.Tensor)
    np.testing.assert_array_equal(plain.value.frequencies.numpy(), found.value.frequencies)


def test_candidates_that_no_path_has_are_not_picked() -> None:
    tensor = scene(W, C, (8, 12, 24), 0.01)
    grids = [np.append(np.unique(column), 1.7) for column in W.T]
    picked = matched(tensor, grids, None)
    assert {tuple(p) for p in picked} == {tuple(p) for p in W}
    np.testing.assert_allclose(matched(tensor, grids, 1), W[:1])


def test_the_weakest_and_the_weaker_of_the_nearest_are_doubted() -> None:
    w = np.array([[0.1, np.pi - 0.01], [1.0, 1.0], [0.1, 0.01 - np.pi], [2.0, 0.5]])
    assert doubtful(w, np.array([1.0, 0.1, 0.5, 2.0]), (10, 10)) == {1, 2}


def test_a_vector_and_frequencies_at_the_wrap_are_found() -> None:
    w = np.array([np.pi - 1e-3, -1.0])
    h = exponentials(w, 64) @ [1.0, 0.8]
    found = harmonics(h + 1e-3 * np.random.default_rng(1).standard_normal(64))
    off = np.angle(np.exp(1j * (found.value.frequencies[:, 0] - w)))
    assert np.abs(off).max() < 1e-3


def test_what_compression_hides_is_said() -> None:
    w = np.array([[0.2, 0.1, 0.1], [0.4, -0.5, 1.2]])  # 1.2 > pi / 3
    tensor = scene(w, np.array([1.0, 1.0]), (8, 10, 24), 0.05)
    hidden = harmonics(tensor, (1, 1, 3), 1)
    assert not hidden.converged
    assert "beyond what deltas=(1, 1, 3)" in hidden.message
    assert harmonics(tensor, (1, 1, 2)).converged


def test_fewer_paths_than_asked_for_are_said() -> None:
    found = harmonics(scene(W[:1], C[:1], (6, 8, 10), 0.0) + 0j, None, 100)
    assert not found.converged
    assert " of 100, " in found.message


def test_noise_has_no_paths_and_the_rest_is_refused() -> None:
    none = harmonics(scene(W[:0], C[:0], (6, 8, 10), 1.0) + 0j)
    assert none.value.frequencies.shape == (0, 3)
    with pytest.raises(Refused, match="less than three blocks"):
        harmonics(np.ones((4, 8), complex), (2, 1))
    with pytest.raises(Refused, match="deltas="):
        harmonics(np.ones((4, 8), complex), (1,))
    with pytest.raises(Refused, match="n_paths=0"):
        harmonics(np.ones((4, 8), complex), None, 0)
