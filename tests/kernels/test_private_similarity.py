"""Private sums: exact without noise, noise of the stated size, bounds kept, and an audit of what they tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from eckart.errors import Refused
from eckart.kernels import RBF
from eckart.kernels._private import Fourier, Moments, Trees, release
from eckart.kernels.private_similarity import PrivateKernelSum

LOUD = {"epsilon": 1e9, "delta": 0.0}


def test_without_noise_sums_are_exact() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (50, 3)), rng.uniform(-1, 1, (7, 3))
    apart = x - y[:, None]
    squares = PrivateKernelSum("sqeuclidean", bounds=3.0, **LOUD).fit(x)
    np.testing.assert_allclose(squares.transform(y)[:, 0], np.square(apart).sum((1, 2)), rtol=1e-5)
    assert squares.count_ == pytest.approx(50, abs=1e-4)
    # Places of y go to the nearest of 2^10 ends: at most half an interval for each point that lies there.
    sums = PrivateKernelSum("l1", bounds=(-1.0, 1.0), **LOUD).fit(x).transform(y)[:, 0]
    np.testing.assert_allclose(sums, np.abs(apart).sum((1, 2)), atol=0.01)
    kernel = 2.0 * RBF(0.8)
    many = PrivateKernelSum(kernel, n_features=20000, random_state=0, **LOUD).fit(x).transform(y)[:, 0]
    np.testing.assert_allclose(many, kernel(y, x).sum(1), atol=50 * 2 * 4 / np.sqrt(10000))


def maps() -> list[Any]:
    w = np.random.default_rng(1).standard_normal((20, 3))
    return [Fourier(w, 1.0), Moments(1.5, 3), Trees(-1.0, 1.0, 3, 4)]


@pytest.mark.parametrize("map_", maps(), ids=lambda m: type(m).__name__)
def test_no_point_tells_more_than_is_stated(map_: Any) -> None:
    rng = np.random.default_rng(2)
    for scale in (0.1, 1.0, 1e3, 1e200 if not isinstance(map_, Fourier) else 1.0):
        for x in rng.standard_normal((30, 3)) * scale:
            told = map_.total(x[None])
            assert np.abs(told).sum() <= map_.l1 * (1 + 1e-12)
            assert np.linalg.norm(told) <= map_.l2 * (1 + 1e-12)
    x = rng.standard_normal((9, 3))
    np.testing.assert_allclose(map_.total(x), sum(map_.total(each[None]) for each in x), atol=1e-12)
    np.testing.assert_allclose(map_.count(map_.total(x)), 9)


def audited(first: np.ndarray, second: np.ndarray, delta: float) -> float:
    """The epsilon that a test between two laws shows at least, with 95 % confidence (Clopper and Pearson)."""
    shown = 0.0
    n = len(first)
    for cut in np.quantile(np.concatenate([first, second]), np.linspace(0.02, 0.98, 25)):
        for one, other in ((first, second), (-first, -second)):
            level = cut if one is first else -cut
            hits, misses = int((one > level).sum()), int((other > level).sum())
            low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
            high = beta.ppf(0.975, misses + 1, n - misses) if misses < n else 1.0
            if low > delta:
                shown = max(shown, float(np.log((low - delta) / high)))
    return shown


@pytest.mark.parametrize(("delta", "neighbours"), [(0.0, "add-remove"), (1e-3, "add-remove"), (1e-3, "replace")])
def test_an_audit_shows_no_more_than_epsilon(delta: float, neighbours: Any) -> None:
    map_ = Fourier(np.random.default_rng(3).standard_normal((1, 2)), 1.0)
    rng, n = np.random.default_rng(4), 10000
    x = np.array([[0.3, -0.2]])
    with_it, without = map_.total(x), np.zeros(3)
    if neighbours == "replace":
        without = map_.total(x + np.pi * map_.frequencies / np.square(map_.frequencies).sum())
    way = with_it - without
    if not delta:
        way = np.sign(way)
    draws = [
        release(np.tile(total, (n, 1)), map_, 1.0, delta, neighbours, rng)[0] @ way for total in (with_it, without)
    ]
    shown = audited(draws[0], draws[1], delta)
    assert 0.2 < shown <= 1.0


def test_noise_is_as_reported_and_does_not_grow_with_features() -> None:
    x, y = np.zeros((1, 2)), np.random.default_rng(5).standard_normal((200, 2))
    for delta, grows in ((1e-6, 1.0), (0.0, 4.0)):
        spread = []
        for count in (50, 800):
            # Far from the data set the answer is noise.
            fits = [PrivateKernelSum(n_features=count, delta=delta, random_state=s).fit(x) for s in range(8)]
            spread.append(np.std([fitted.transform(y + 40)[:, 0] for fitted in fits]))
            assert fits[0].privacy_["mechanism"] == ("gaussian" if delta else "laplace")
            rows = np.concatenate([fitted.told_ for fitted in fits])
            sd = fits[0].privacy_["scale"] * (1 if delta else np.sqrt(2))
            assert rows.std() == pytest.approx(sd, rel=0.1)
        assert spread[1] / spread[0] == pytest.approx(grows, rel=0.3)
    pair = [PrivateKernelSum(neighbours=each).fit(x).privacy_["scale"] for each in ("add-remove", "replace")]
    assert pair[1] == pytest.approx(2 * pair[0])


def test_what_cannot_be_met_is_refused() -> None:
    x = np.ones((5, 2))
    for options, words in (
        ({"kernel": "sqeuclidean"}, "the radius of all points"),
        ({"kernel": "l1"}, "coordinate"),
        ({"kernel": "l1", "bounds": (1.0, 0.0)}, "coordinate"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0, "delta": 0.0}, "epsilon"),
        ({"neighbours": "any"}, "neighbours='any'"),
        ({"kernel": "linear"}, "no spectral density"),
        ({"n_features": 0}, "n_features=0"),
    ):
        with pytest.raises(Refused, match=words):
            PrivateKernelSum(**options).fit(x)
