"""Sums of kernels as logarithms: scipy's, far beyond what a number holds, and all widths at once."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from eckart.linalg.log_sums import leave_one_out, log_sums


def far(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.square(x[:, None] - z).sum(-1)


def test_sums_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, z = 40 * rng.standard_normal((7, 3)), rng.standard_normal((9, 3))
    np.testing.assert_allclose(log_sums(x, z, 0.3), logsumexp(-far(x, z) / 0.18, 1), rtol=1e-12)
    assert log_sums(x[:0], z, 1.0).shape == (0,)


def test_all_widths_of_one_pass_are_those_of_one_each() -> None:
    z = np.random.default_rng(1).standard_normal((20, 2))
    z[3] = z[4]
    widths, sums = leave_one_out(z, 2.0, 5, 4)
    distance = far(z, z)
    distance[distance == 0] = np.inf
    expected = [logsumexp(-distance / (2 * width**2), 1) - np.log(19) for width in widths]
    np.testing.assert_allclose(sums.T, expected, rtol=1e-10)
    assert widths[-1] == 2.0 / 32
    assert leave_one_out(np.zeros((3, 1)), 1.0, 1, 2)[1].max() == -np.inf
