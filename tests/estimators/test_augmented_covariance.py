"""Covariances of delays: written out, by scikit-learn's shrinkage, and what tells spectra apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import oas
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from eckart.errors import Refused
from eckart.estimators.augmented_covariance import AugmentedCovariance, covariances, delay_embedding, shrunk


def trials(n: int = 12, channels: int = 3, samples: int = 60) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, channels, samples)) + 2.0


def test_blocks_are_the_past() -> None:
    x = trials()
    found = delay_embedding(x, 3, 2)
    assert found.shape == (12, 9, 56)
    for i in range(3):
        for t in range(56):
            np.testing.assert_array_equal(found[:, 3 * i : 3 * i + 3, t], x[:, :, t + 4 - 2 * i])
    wrapped = delay_embedding(x, 3, 2, circular=True)
    assert wrapped.shape == (12, 9, 60)
    np.testing.assert_array_equal(wrapped[..., 4:], found)
    np.testing.assert_array_equal(wrapped[:, 3:6, 0], x[:, :, -2])


def test_shrinkage_is_that_of_scikit_learn() -> None:
    x = trials()
    for each, s in zip(x, shrunk(covariances(x), 60, "oas"), strict=True):
        np.testing.assert_allclose(s, oas(each.T)[0], rtol=1e-10)
    np.testing.assert_allclose(covariances(x)[0], np.cov(x[0], bias=True), rtol=1e-12)
    np.testing.assert_allclose(
        shrunk(covariances(x), 60, 1.0), np.trace(covariances(x), axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    )


def test_one_block_is_the_plain_covariance_and_vectors_come_back_to_it() -> None:
    x = trials()
    plain = AugmentedCovariance(1, shrinkage=0.0, output="covariance").fit_transform(x)
    np.testing.assert_allclose(plain, covariances(x), rtol=1e-12)
    tangent = AugmentedCovariance(1, shrinkage=0.0).fit(x)
    np.testing.assert_allclose(tangent.inverse_transform(tangent.transform(x)), plain, rtol=1e-9)
    np.testing.assert_allclose(tangent.transform(x).mean(0), 0, atol=1e-9)


def test_vectors_do_not_see_how_channels_are_mixed() -> None:
    x = trials()
    mixing = np.random.default_rng(1).standard_normal((3, 3))
    one, other = (AugmentedCovariance(2, shrinkage=0.0).fit_transform(each) for each in (x, mixing @ x))
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-8)


def test_delays_tell_spectra_apart_that_covariances_cannot() -> None:
    rng = np.random.default_rng(2)
    white = rng.standard_normal((80, 2, 121))
    y = np.arange(80) % 2
    x = white[..., 1:] + np.where(y == 1, 1.0, -1.0)[:, None, None] * white[..., :-1]
    scores = [
        make_pipeline(AugmentedCovariance(order), LogisticRegression()).fit(x[:40], y[:40]).score(x[40:], y[40:])
        for order in (1, 2)
    ]
    assert scores[1] == 1
    assert scores[0] < 0.75


def test_what_is_singular_or_too_short_is_refused() -> None:
    x = trials(samples=10)
    with pytest.raises(Refused, match=r"trial 0 has rank \d of 12"):
        AugmentedCovariance(4, shrinkage=0.0).fit(x)
    assert np.isfinite(AugmentedCovariance(4).fit_transform(x)).all()
    with pytest.raises(Refused, match="more than 10 samples"):
        AugmentedCovariance(11).fit(x)
    with pytest.raises(Refused, match="shrinkage=2"):
        AugmentedCovariance(shrinkage=2).fit(x)
