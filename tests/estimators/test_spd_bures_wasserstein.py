"""Bures-Wasserstein means, tangents and normalized matrices, by matrix square roots written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov, sqrtm

from eckart.errors import Refused
from eckart.estimators.spd_bures_wasserstein import BuresNormalizer
from eckart.linalg.spd import bures_distance, bures_mean, bures_tangents, from_bures_tangents


def matrices(n: int = 6, p: int = 4, samples: int = 12) -> np.ndarray:
    a = np.random.default_rng(0).standard_normal((n, p, samples))
    return a @ np.swapaxes(a, 1, 2)


def test_the_mean_is_the_fixed_point_and_no_other_is_nearer_to_all() -> None:
    a = matrices()
    found = bures_mean(a)
    assert found.converged
    root = sqrtm(found.value)
    np.testing.assert_allclose(np.mean([sqrtm(root @ x @ root) for x in a], axis=0), found.value, atol=1e-7)
    least = np.square(bures_distance(a, found.value)).sum()
    for other in (a.mean(0), found.value * 1.01, found.value + 0.05 * np.eye(4)):
        assert np.square(bures_distance(a, other)).sum() > least


def test_tangents_are_logarithms_carried_to_the_identity_and_come_back() -> None:
    a, m = matrices(), matrices(1)[0] + np.diag([1.0, 2, 3, 4])
    found = bures_tangents(a, m)
    np.testing.assert_allclose(np.linalg.norm(found, axis=(1, 2)), bures_distance(a, m))
    values, q = np.linalg.eigh(m)
    for x, u in zip(a, found, strict=True):
        log = np.real(sqrtm(m @ x) + sqrtm(x @ m)) - 2 * m
        carried = q @ (q.T @ log @ q * np.sqrt(2 / (values[:, None] + values))) @ q.T
        np.testing.assert_allclose(u, carried / 2, atol=1e-7)
        move = solve_continuous_lyapunov(m, log)
        np.testing.assert_allclose((np.eye(4) + move) @ m @ (np.eye(4) + move), x, atol=1e-7)
    np.testing.assert_allclose(from_bures_tangents(found, m), a, atol=1e-9)
    with pytest.raises(Refused, match="out of the positive definite"):
        from_bures_tangents(-9 * found, m)


def test_singular_and_ill_conditioned_matrices_do_no_harm() -> None:
    singular = matrices(20, samples=2)
    fitted = BuresNormalizer(tol=1e-6).fit(singular)
    vectors = fitted.transform(singular)
    np.testing.assert_allclose(fitted.inverse_transform(vectors), singular, atol=1e-7)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-4)
    scaled = matrices() * (units := 10.0 ** np.array([0, -2, -4, -5])) * units[:, None]
    assert np.abs(BuresNormalizer().fit_transform(scaled).mean(0)).max() < 1e-8


def test_normalized_matrices_are_centred_and_of_spread_one() -> None:
    a = matrices(30, samples=9)
    a[-1] = a[:-1].sum(0)  # an outlier, which makes room for the others
    for options in ({}, {"power": 0.5}, {"metric": "mean"}, {"metric": np.diag([1.0, 2, 3, 4])}):
        fitted = BuresNormalizer("matrix", **options).fit(a)
        found = fitted.transform(a)
        np.testing.assert_allclose(np.mean(np.square(bures_distance(found, np.eye(4)))), 1, atol=1e-7)
        tangents = BuresNormalizer(**options).fit(a)
        np.testing.assert_allclose(tangents.inverse_transform(tangents.transform(a)), a, atol=1e-7)
    # With a metric that comes along, changes of coordinates change no distance.
    units, b = BuresNormalizer(metric="mean"), np.diag([3.0, 1, 0.1, 7]) + 0.2
    changed, plain = (np.linalg.norm(units.fit_transform(x), axis=1) for x in (b @ a @ b.T, a))
    np.testing.assert_allclose(changed, plain, rtol=1e-6)


def test_what_is_no_covariance_is_refused() -> None:
    a = matrices()
    for x, options, words in (
        (a[:, :3], {}, "shape"),
        (a - 99 * np.eye(4), {}, "none may be negative"),
        (a + np.triu(np.ones((4, 4)), 1), {}, "not symmetric"),
        (a, {"power": 0.0}, "power=0.0"),
        (a, {"metric": np.eye(3)}, "a metric of"),
        (a, {"output": "log"}, "output='log'"),
    ):
        with pytest.raises(Refused, match=words):
            BuresNormalizer(**options).fit(x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_matrices_of_low_rank_have_a_definite_mean_or_are_refused(rank: int) -> None:
    v = np.random.default_rng(0).standard_normal((30, 4, rank))
    x = v @ np.swapaxes(v, 1, 2)
    if rank == 1:
        with pytest.raises(Refused, match="of 4"):
            BuresNormalizer().fit(x)
        x = x + 1e-3 * np.eye(4)
    assert np.isfinite(BuresNormalizer().fit_transform(x)).all()
