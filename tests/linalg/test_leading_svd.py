"""The largest singular triplets against a whole decomposition."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from eckart.linalg.thresholded_svd import leading_svd, spectral_norm


def test_the_largest_triplets_are_those_of_the_whole_decomposition() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((30, 4)) * [9.0, 5.0, 3.0, 2.0] @ rng.standard_normal((4, 20))
    a += 0.01 * rng.standard_normal(a.shape)
    u, s, vt = np.linalg.svd(a)
    for given in (a, sparse.csr_array(a)):
        found = leading_svd(given, 3, rng, tolerance=1e-12, steps=50)
        np.testing.assert_allclose(found.values, s[:3], rtol=1e-9)
        np.testing.assert_allclose(found.dense(), (u[:, :3] * s[:3]) @ vt[:3], atol=1e-6)
        np.testing.assert_allclose(spectral_norm(given, rng), s[0], rtol=1e-2)
    assert leading_svd(a[:2], 2, rng).values.shape == (2,)
