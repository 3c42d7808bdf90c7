"""The nearest orthogonal matrix against others."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.linalg.polar import polar


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3)])
def test_none_lies_nearer(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal(shape)
    found = polar(a)
    small = found if shape[-2] <= shape[-1] else np.swapaxes(found, -1, -2)
    np.testing.assert_allclose(
        small @ np.swapaxes(small, -1, -2),
        np.broadcast_to(np.eye(min(shape[-2:])), small.shape[:-1] + small.shape[-2:-1]),
        atol=1e-13,
    )
    for _ in range(200):
        other = found + rng.uniform(0, 1) * rng.standard_normal(shape)
        other /= np.linalg.norm(other, 2, axis=(-2, -1), keepdims=True)
        assert ((other * a).sum((-2, -1)) < (found * a).sum((-2, -1))).all()


def test_an_orthogonal_matrix_is_its_own() -> None:
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    np.testing.assert_allclose(polar(3 * q), q, atol=1e-13)
