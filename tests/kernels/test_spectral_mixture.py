"""A spectral mixture beside the sum of its parts."""

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.kernels import RBF, Cosine
from eckart.kernels.spectral_mixture import SpectralMixture


def test_it_is_a_sum_of_gaussians_times_waves() -> None:
    x = np.random.default_rng(0).standard_normal((6, 1))
    parts = 0.5 * (RBF(1 / (2 * np.pi * 0.2)) * Cosine(0.7)) + 1.5 * (RBF(1 / (2 * np.pi * 0.4)) * Cosine(0.1))
    np.testing.assert_allclose(SpectralMixture([0.5, 1.5], [0.7, 0.1], [0.2, 0.4])(x), parts(x), rtol=1e-12)
    with pytest.raises(Refused, match="2 dimensions"):
        SpectralMixture([1.0], [[0.1, 0.2]], [[0.1, 0.2]])(x)
