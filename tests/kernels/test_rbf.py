"""The Gaussian kernel beside its formula."""

import numpy as np

from eckart.kernels.rbf import RBF


def test_it_is_its_formula() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3)) + 1e3
    length = np.array([0.5, 1.0, 2.0])
    d = (x[:, None] - x) / length
    np.testing.assert_allclose(RBF(length)(x), np.exp(-0.5 * np.square(d).sum(-1)), rtol=1e-12)
