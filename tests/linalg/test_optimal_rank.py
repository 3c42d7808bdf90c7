"""The threshold of singular values against its closed form at a square, and noise against drawn noise."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.optimal_rank import gavish_donoho, marchenko_pastur_median, noise_level, optimal_rank


def test_the_square_has_a_threshold_in_closed_form() -> None:
    assert gavish_donoho(1.0) == pytest.approx(4 / np.sqrt(3))
    assert gavish_donoho(1.0) / np.sqrt(marchenko_pastur_median(1.0)) == pytest.approx(2.858, abs=1e-3)
    with pytest.raises(Refused, match="aspect of 2"):
        gavish_donoho(2)


@pytest.mark.parametrize("aspect", [0.05, 0.4, 1.0])
def test_the_median_is_that_of_drawn_noise(aspect: float) -> None:
    n = 400
    values = np.linalg.svd(np.random.default_rng(0).standard_normal((int(n * aspect), n)), compute_uv=False)
    assert np.median(values**2) / n == pytest.approx(marchenko_pastur_median(aspect), rel=0.03)


def test_rank_and_noise_of_a_planted_matrix() -> None:
    rng = np.random.default_rng(1)
    low = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 50))
    for noise in (0.1, 3e-7):
        for a in (low + noise * rng.standard_normal(low.shape),):
            values = np.linalg.svd(a, compute_uv=False)
            assert optimal_rank(values, a.shape) == optimal_rank(values, a.T.shape) == 3
            assert noise_level(values, a.shape) == pytest.approx(noise, rel=0.1)
            assert optimal_rank(values, a.shape, 1e3) == 0
