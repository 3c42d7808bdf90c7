"""Mode products against Kronecker products."""

from __future__ import annotations

from functools import reduce

import numpy as np

from eckart.linalg.mode_products import kron_matvec, mode_products, outer, unfold


def test_mode_products_are_kronecker_products() -> None:
    rng = np.random.default_rng(0)
    t = rng.standard_normal((2, 3, 4))
    matrices = [rng.standard_normal((m, n)) + 1j * rng.standard_normal((m, n)) for m, n in ((5, 2), (3, 3), (2, 4))]
    whole = reduce(np.kron, matrices)
    np.testing.assert_allclose(kron_matvec(matrices, t.ravel()), whole @ t.ravel())
    np.testing.assert_allclose(mode_products(t, matrices).ravel(), whole @ t.ravel())
    np.testing.assert_allclose(mode_products(t, [None, matrices[1], None]), np.einsum("jb,abc->ajc", matrices[1], t))
    for mode in range(3):
        one = [None, None, None]
        one[mode] = matrices[mode]
        np.testing.assert_allclose(unfold(mode_products(t, one), mode), matrices[mode] @ unfold(t, mode))
    vectors = [rng.standard_normal(n) for n in (2, 3, 4)]
    np.testing.assert_allclose(outer(vectors).ravel(), reduce(np.kron, vectors))
