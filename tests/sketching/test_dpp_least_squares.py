"""Designs for least squares against exact expectations and against independent points."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.projection_dpp import orthonormal
from eckart.sketching.dpp_least_squares import SampledLeastSquares, dpp_design


def legendre(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x = np.sort(np.random.default_rng(seed).uniform(-1, 1, n))
    return x, np.polynomial.legendre.legvander(x, m - 1)


def test_interpolation_at_determinantal_points_is_unbiased() -> None:
    """Over all sets, with their exact probabilities: the mean of the fits is the least-squares fit."""
    x, phi = legendre(8, 3)
    q, y = orthonormal(phi), np.exp(2 * x)
    chances, mean = 0.0, np.zeros(3)
    for s in combinations(range(8), 3):
        chance = np.linalg.det(q[list(s)]) ** 2
        mean += chance * np.linalg.solve(phi[list(s)], y[list(s)])
        chances += chance
    assert chances == pytest.approx(1)
    np.testing.assert_allclose(mean, np.linalg.lstsq(phi, y, rcond=None)[0])
    design = dpp_design(phi, 3, generator=0)
    np.testing.assert_allclose(design.fit(y[design.index]), np.linalg.solve(phi[design.index], y[design.index]))


def test_weights_and_exactness() -> None:
    _, phi = legendre(40, 5)
    for design in ("repeated-dpp", "volume", "iid"):
        found = dpp_design(phi, 12, design=design, generator=1)
        assert len(found.index) == 12
        leverage = np.square(orthonormal(phi)).sum(1)
        np.testing.assert_allclose(found.weights * leverage[found.index] * 40, 5)
        y = phi @ np.arange(5.0)
        np.testing.assert_allclose(found.fit(y[found.index]), np.arange(5.0), atol=1e-9)
        np.testing.assert_allclose(found.fit(np.stack([y, 2 * y], 1)[found.index])[:, 1], 2 * np.arange(5.0), atol=1e-9)
    first = dpp_design(phi, 10, generator=2).index
    assert len(set(first[:5].tolist())) == len(set(first[5:].tolist())) == 5


def test_repelling_points_have_a_shorter_tail() -> None:
    x, phi = legendre(200, 6)
    y = np.exp(np.sin(4 * x))
    best = np.linalg.norm(y - phi @ np.linalg.lstsq(phi, y, rcond=None)[0])
    worst = {}
    for design in ("repeated-dpp", "iid"):
        errors = []
        for seed in range(60):
            found = dpp_design(phi, 12, design=design, generator=seed)
            errors.append(np.linalg.norm(y - phi @ found.fit(y[found.index])) / best)
        worst[design] = np.sqrt(np.mean(np.square(errors)))
    assert worst["repeated-dpp"] < 2
    assert worst["iid"] > 2 * worst["repeated-dpp"]


def test_refusals() -> None:
    _, phi = legendre(20, 4)
    with pytest.raises(Refused, match="count=3 points do not determine 4"):
        dpp_design(phi, 3)
    with pytest.raises(Refused, match="linearly dependent"):
        dpp_design(phi[:, [0, 0]], 3)
    with pytest.raises(Refused, match="12 points have 12 values"):
        dpp_design(phi, 12).fit(np.ones(3))


def test_an_estimator_reads_y_at_its_points_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 4))
    x[:, 3] = x[:, 0]  # dependent: the coefficients of least norm
    y = np.full(50, np.nan)
    model = SampledLeastSquares(random_state=3)
    rows = model.design_points(x)
    y[rows] = x[rows] @ [1.0, 2.0, 3.0, 1.0] + 5
    fitted = model.fit(x, y)
    np.testing.assert_array_equal(np.unique(fitted.index_), rows)
    assert len(fitted.index_) == 8
    np.testing.assert_allclose([*fitted.coef_, fitted.intercept_], [1, 2, 3, 1, 5], rtol=1e-10)
    design = dpp_design(
        np.linalg.svd(np.c_[x / np.abs(x).max(0), np.ones(50)], full_matrices=False)[0][:, :4], 8, generator=3
    )
    np.testing.assert_array_equal(design.index, fitted.index_)
    with pytest.raises(Refused, match="is NaN, and is read"):
        SampledLeastSquares(12, random_state=4).fit(x, y)
    with pytest.raises(Refused, match="give it a number"):
        SampledLeastSquares().design_points(x)
    whole = SampledLeastSquares(50).fit(x, x @ np.ones(4))
    np.testing.assert_array_equal(whole.index_, np.arange(50))
