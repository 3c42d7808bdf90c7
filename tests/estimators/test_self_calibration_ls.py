"""Self-calibration by linear least squares, against the large linear problem that it eliminates from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag, eigh, null_space

from eckart.errors import Refused
from eckart.estimators.self_calibration_ls import inverse_gains, least_singular, self_calibration

P, M, N = 5, 9, 4


def problem(noise: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, x, d = rng.standard_normal((P, M, N)), rng.standard_normal(N), rng.uniform(0.5, 1.5, M)
    d /= d.mean()
    return a, d * (a @ x) + noise * rng.standard_normal((P, M)), d, x


def whole(a: np.ndarray, y: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
    """[diag(y_l) B, -A_l] for all l, one below the other."""
    b = np.eye(M) if basis is None else basis
    return np.vstack([np.hstack([np.diag(each) @ b, -part]) for each, part in zip(y, a, strict=True)])


@pytest.mark.parametrize("q", [None, 3])
def test_eliminated_it_is_the_constrained_least_squares_solution(q: int | None) -> None:
    a, y, _, _ = problem()
    basis = None if q is None else np.random.default_rng(1).uniform(0.5, 1, (M, q))
    matrix = whole(a, y, basis)
    b = np.eye(M) if basis is None else basis
    c = np.concatenate([b.sum(axis=0), np.zeros(N)])[None]
    free, fixed = null_space(c), np.linalg.pinv(c)[:, 0] * M
    z = fixed + free @ np.linalg.lstsq(matrix @ free, -matrix @ fixed, rcond=None)[0]
    s, x = inverse_gains(a, y, basis)
    np.testing.assert_allclose(s, b @ z[: b.shape[1]], rtol=1e-8)
    np.testing.assert_allclose(x, z[b.shape[1] :], rtol=1e-8)


def test_the_spectral_way_is_the_least_singular_vector_in_balanced_units() -> None:
    a, y, _, _ = problem()
    unit = np.sqrt(np.square(y).sum() / M / (np.square(a).sum() / N))
    matrix = whole(a, y) @ block_diag(np.eye(M), unit * np.eye(N))
    z = np.linalg.svd(matrix)[2][-1]
    s, x = least_singular(a, y)
    np.testing.assert_allclose(s, z[:M] / z[:M].mean(), rtol=1e-8)
    np.testing.assert_allclose(x, unit * z[M:] / z[:M].mean(), rtol=1e-8)
    assert eigh(matrix.T @ matrix, eigvals_only=True)[0] > 0


@pytest.mark.parametrize("method", ["ls", "spectral"])
def test_without_noise_it_is_exact_and_units_do_not_matter(method: str) -> None:
    a, y, d, x = problem(0.0)
    for scale in (1.0, 2.0**300):
        found = self_calibration(a * scale, y / scale, method=method).value  # type: ignore[arg-type]
        np.testing.assert_allclose(found.gains, d, rtol=1e-8)
        np.testing.assert_allclose(found.signal * scale * scale, x, rtol=1e-7)
        assert np.mean(found.gains) == pytest.approx(1)


def test_a_subspace_needs_fewer_measurements() -> None:
    rng = np.random.default_rng(5)
    m, n = 30, 12
    basis = np.stack([np.ones(m), np.linspace(-0.4, 0.4, m)], axis=1)
    s, a, x = basis @ [1.0, 1.0], rng.standard_normal((2, m, n)), rng.standard_normal(n)
    noise = 1e-3 * rng.standard_normal((2, m))
    y = (a @ x) / s + noise
    d = 1 / s / (1 / s).mean()
    held = np.linalg.norm(self_calibration(a, y, basis=basis).value.gains - d)
    assert held < 0.2 * np.linalg.norm(self_calibration(a, y).value.gains - d)


def test_gains_that_cannot_be_are_said_or_refused() -> None:
    a, y, _, _ = problem()
    turned = y.copy()
    turned[:, 2] *= -1
    found = self_calibration(a, turned)
    assert found.value.gains[2] < 0
    assert not found.converged
    assert "not positive" in found.message
    silent = y.copy()
    silent[:, 2] = 0
    with pytest.raises(Refused, match=r"\[2\] measured nothing"):
        self_calibration(a, silent)
    with pytest.raises(Refused, match="12 measurements"):
        self_calibration(a[:1], y[:1])
    with pytest.raises(Refused, match="independent columns"):
        self_calibration(a, y, basis=np.ones((M, 2)))
