"""Root-MUSIC on exact covariances, and orders of samples."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.linalg.exponentials import exponentials
from eckart.linalg.root_music import forward_backward, mdl_order, root_music


@pytest.mark.parametrize("frequencies", [[0.3], [-1.2, 0.1, 0.4], [-3.0, 3.0]])
def test_an_exact_covariance_gives_its_frequencies(frequencies: list[float]) -> None:
    a = exponentials(np.array(frequencies), 8)
    covariance = (a * np.arange(1.0, 1 + len(frequencies))) @ a.conj().T + 0.3 * np.eye(8)
    np.testing.assert_allclose(root_music(covariance, len(frequencies)), frequencies, atol=1e-6)
    np.testing.assert_allclose(forward_backward(covariance), (covariance + np.flip(covariance).conj()) / 2)
    assert len(root_music(covariance, 0)) == 0


def test_the_order_is_found_in_samples_and_noise_has_none() -> None:
    rng = np.random.default_rng(0)
    orders = {0: [], 2: []}  # type: dict[int, list[int]]
    for _ in range(40):
        noise = rng.standard_normal((6, 200)) + 1j * rng.standard_normal((6, 200))
        source = rng.standard_normal((2, 200)) + 1j * rng.standard_normal((2, 200))
        for count in orders:
            x = exponentials(np.array([-0.5, 0.9])[:count], 6) @ source[:count] + noise
            values = np.linalg.eigvalsh(forward_backward(x @ x.conj().T))
            orders[count].append(mdl_order(values, 200))
    for count, found in orders.items():
        assert np.mean(np.array(found) == count) > 0.9
    assert mdl_order(np.zeros(4), 10) == 0
    assert mdl_order(np.array([1.0, 0, 0, 0]), 10) == 1
