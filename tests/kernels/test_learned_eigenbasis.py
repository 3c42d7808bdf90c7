"""A basis from smoothed probes: the least residuals, the limit of many probes, new points, harmonics of a sphere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.kernels.learned_eigenbasis import ProbeEigenbasis, averaging, probe_basis


def sphere(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def residual(probes: np.ndarray, basis: np.ndarray) -> float:
    """The paper's: of the probes on the first j columns, over all j."""
    left = (probes - basis[:, :j] @ (basis[:, :j].T @ probes) for j in range(1, 1 + basis.shape[1]))
    return sum(float(np.square(each).sum()) for each in left)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0]).sum()) / a.shape[1]


def test_means_are_over_weighted_neighbours() -> None:
    x = np.array([[0.0], [1.0], [3.0]])
    found, width = averaging(x, x, 2, 1.0)
    e = np.exp(-0.5)
    f = np.exp(-2.0)
    expected = [[1 / (1 + e), e / (1 + e), 0], [e / (1 + e), 1 / (1 + e), 0], [0, f / (1 + f), 1 / (1 + f)]]
    np.testing.assert_allclose(found.toarray(), expected)
    assert width == 1.0
    assert averaging(x, x, 2, None)[1] == 0.5


def test_no_basis_has_smaller_residuals() -> None:
    rng = np.random.default_rng(0)
    probes = rng.standard_normal((40, 12)) * np.logspace(0, -2, 12)
    u, s, v = probe_basis(probes, 4)
    np.testing.assert_allclose(u.T @ probes, s[:, None] * v.T, atol=1e-8)
    least = residual(probes, u)
    for scale in (0.01, 0.1, 1.0):
        assert residual(probes, np.linalg.qr(u + scale * rng.standard_normal(u.shape))[0]) > least


@pytest.mark.parametrize("probes", [None, 60])
def test_fitted_points_have_their_basis_again(probes: int | None) -> None:
    x = sphere(150)
    fitted = ProbeEigenbasis(5, n_probes=probes, steps=4, random_state=0).fit(x)
    np.testing.assert_allclose(fitted.transform(x), fitted.components_, atol=1e-7)
    np.testing.assert_allclose(fitted.components_.T @ fitted.components_, np.eye(5), atol=1e-8)
    assert fitted.eigenvalues_[0] == 0
    assert (np.diff(fitted.eigenvalues_) >= -1e-12).all()
    assert fitted.density_.sum() == pytest.approx(1)


def test_many_probes_come_to_the_limit_and_the_limit_to_the_harmonics() -> None:
    x = sphere(600)
    harmonics = np.stack([np.ones(600), *x.T], 1)
    limit = ProbeEigenbasis(4, random_state=0).fit(x)
    few, many = (ProbeEigenbasis(4, n_probes=p, random_state=0).fit(x) for p in (30, 2000))
    apart = [1 - overlap(limit.components_, each.components_) for each in (few, many)]
    assert apart[1] < 0.2 * apart[0]
    assert overlap(limit.components_, harmonics) > 0.9
    new = sphere(200, 1)
    across = overlap(limit.transform(new), np.stack([np.ones(200), *new.T], 1))
    assert across > 0.9


def test_probes_of_ones_own_have_no_extension() -> None:
    x = sphere(30)
    fitted = ProbeEigenbasis(2, probes=lambda points, rng: points).fit(x)
    assert overlap(fitted.components_, np.linalg.svd(x)[0][:, :2]) == pytest.approx(1)
    with pytest.raises(Refused, match="components_"):
        fitted.transform(x)
    for wrong in ({"steps": 0}, {"width": 0.0}, {"n_probes": 0}, {"probes": lambda points, rng: np.ones(3)}):
        with pytest.raises(Refused):
            ProbeEigenbasis(**wrong).fit(x)


@pytest.mark.parametrize("options", [{"width": "a"}, {"width": 0}, {"probes": 3}, {"steps": None}])
def test_options_of_another_kind(options: Any) -> None:
    with pytest.raises(Refused, match=next(iter(options))):
        ProbeEigenbasis(2, **options).fit(np.random.default_rng(0).standard_normal((9, 2)))
