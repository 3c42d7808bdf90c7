"""Gaussian processes by filters against the same by whole covariance matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eckart.linalg.markov_gp import Kernel, marginals, smoothed, transition


def covariance(kernel: Kernel, one: np.ndarray, other: np.ndarray, length: float) -> np.ndarray:
    x = np.abs(one[:, None] - other) / length
    return np.exp(-x) if kernel == "matern-1/2" else (1 + np.sqrt(3) * x) * np.exp(-np.sqrt(3) * x)


@pytest.mark.parametrize("kernel", ["matern-1/2", "matern-3/2"])
def test_the_posterior_is_that_of_the_whole_covariance(kernel: Kernel) -> None:
    rng = np.random.default_rng(0)
    n, r, length = 9, 2, 0.3
    times = np.sort(rng.random(n))
    times[4] = times[3] + 1e-13
    half = rng.standard_normal((n, r, r))
    half[2, :, 1] = 0  # one direction is seen there, and nothing at the next
    half[5] = 0
    precision = half @ np.swapaxes(half, 1, 2)
    shift = (half @ rng.standard_normal((n, r, 1)))[..., 0]
    found = smoothed(kernel, length, times, precision, shift)
    new = np.concatenate([times[:3], rng.uniform(-0.5, 1.5, 6)])
    both = np.concatenate([times, new])
    k = np.kron(covariance(kernel, both, both, length), np.eye(r))
    seen = np.zeros((len(k), len(k)))
    for i in range(n):
        seen[i * r : i * r + r, i * r : i * r + r] = precision[i]
    after = np.linalg.solve(np.eye(len(k)) + k @ seen, k)
    mean = after @ np.concatenate([shift.ravel(), np.zeros(len(new) * r)])
    np.testing.assert_allclose(found.mean.ravel(), mean[: n * r], atol=1e-10)
    whole: Any = after.reshape(len(both), r, len(both), r)
    np.testing.assert_allclose(found.covariance, [whole[i, :, i] for i in range(n)], atol=1e-10)
    same = marginals(kernel, length, times, precision, shift)
    np.testing.assert_allclose(same.mean, found.mean, atol=1e-10)
    np.testing.assert_allclose(same.covariance, found.covariance, atol=1e-10)
    assert same.evidence == pytest.approx(found.evidence)
    m, c = found.at(new)
    np.testing.assert_allclose(m.ravel(), mean[n * r :], atol=1e-10)
    np.testing.assert_allclose(c, [whole[n + i, :, n + i] for i in range(len(new))], atol=1e-10)
    seen, k = seen[: n * r, : n * r], k[: n * r, : n * r]
    expected = shift.ravel() @ mean[: n * r] / 2 - np.linalg.slogdet(np.eye(n * r) + k @ seen)[1] / 2
    assert found.evidence == pytest.approx(expected)
    assert smoothed(kernel, length, times, precision, shift, evidence_only=True).evidence == found.evidence


def test_a_step_is_two_half_steps_and_a_long_one_forgets() -> None:
    for kernel in ("matern-1/2", "matern-3/2"):
        (whole, half, last), (noise, lesser, most) = transition(kernel, np.array([0.6, 0.3, 1e200]))
        np.testing.assert_allclose(whole, half @ half, atol=1e-15)
        np.testing.assert_allclose(noise, half @ lesser @ half.T + lesser, atol=1e-15)
        assert not last.any()
        np.testing.assert_array_equal(most, np.eye(len(most)))
