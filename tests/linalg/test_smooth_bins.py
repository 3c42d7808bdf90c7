"""Densities on a grid are those of all distances."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.log_sums import log_sums
from eckart.linalg.smooth_bins import SmoothBins


@pytest.mark.parametrize("d", [1, 2, 3])
def test_it_is_the_kernel_density(d: int) -> None:
    rng = np.random.default_rng(d)
    z, new, h = rng.standard_normal((300, d)), 2 * rng.standard_normal((200, d)), 0.5
    found, out = SmoothBins.of(z, h)(new)
    exact = log_sums(new, z, h) - np.log(300) - d * np.log(h * np.sqrt(2 * np.pi))
    assert np.abs(np.exp(found) - np.exp(exact))[~out].max() < 1e-4 * np.exp(exact).max()
    assert np.abs(found - exact)[~out].max() < 0.1
    assert exact[out].max() < exact.max() - 11
    assert SmoothBins.of(z, h)(np.full((1, d), 99.0))[1].all()


def test_grids_that_are_too_fine_are_refused() -> None:
    with pytest.raises(Refused, match="too many"):
        SmoothBins.of(np.array([[0.0, 0.0], [1.0, 1.0]]), 1e-5)
