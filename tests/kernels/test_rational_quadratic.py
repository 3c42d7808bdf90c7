"""The rational quadratic kernel beside its formula and its limit."""

import numpy as np

from eckart.kernels.rational_quadratic import RationalQuadratic
from eckart.kernels.rbf import RBF


def test_it_is_its_formula_and_gaussian_in_the_limit() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2))
    s = np.square((x[:, None] - x) / 0.8).sum(-1)
    np.testing.assert_allclose(RationalQuadratic(1.7, 0.8)(x), (1 + s / 3.4) ** -1.7, rtol=1e-12)
    np.testing.assert_allclose(RationalQuadratic(1e9, 0.8)(x), RBF(0.8)(x), rtol=1e-7)
