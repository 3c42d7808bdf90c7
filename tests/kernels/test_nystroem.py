"""Nystroem features against their formula, against uniform landmarks, and what is never written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles

from eckart.errors import Refused
from eckart.kernels.matern import Matern
from eckart.kernels.nystroem import Nystroem
from eckart.kernels.rbf import RBF


def rows(n: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3))


@pytest.mark.parametrize("landmarks", ["rpcholesky", "greedy", "uniform", rows(7, 3)])
def test_products_of_features_are_the_projection_on_the_landmarks(landmarks: object) -> None:
    x, z, kernel = rows(), rows(9, 1), Matern(1.5, 1.5)
    fitted = Nystroem(kernel, n_components=7, landmarks=landmarks, random_state=0)
    first, second = fitted.fit_transform(x), fitted.transform(z)
    s = fitted.components_
    assert s.shape == (7, 3)
    if isinstance(landmarks, str):
        np.testing.assert_array_equal(x[fitted.component_indices_], s)
    expected = kernel(z, s) @ np.linalg.solve(kernel(s), kernel(s, x))
    np.testing.assert_allclose(second @ first.T, expected, atol=1e-10)
    np.testing.assert_allclose(fitted.transform(x), first, atol=1e-12)
    error = np.trace(kernel(x) - first @ first.T) / len(x)
    assert fitted.trace_error_ == pytest.approx(error)


def test_a_precomputed_kernel_gives_the_same() -> None:
    x, z, kernel = rows(), rows(9, 1), RBF(1.5)
    points = Nystroem(kernel, n_components=10, random_state=3).fit(x)
    matrix = Nystroem("precomputed", n_components=10, random_state=3).fit(kernel(x))
    np.testing.assert_array_equal(points.component_indices_, matrix.component_indices_)
    np.testing.assert_allclose(matrix.transform(kernel(z, x)), points.transform(z), atol=1e-10)
    with pytest.raises(Refused, match="no rows to give back"):
        matrix.inverse_transform(np.zeros((1, 10)))


def test_all_rows_are_exact_and_a_tolerance_stops_before() -> None:
    x, kernel = rows(40), RBF(2.0)
    whole = Nystroem(kernel, n_components=40, random_state=0).fit_transform(x)
    np.testing.assert_allclose(whole @ whole.T, kernel(x), atol=1e-10)
    for landmarks in ("rpcholesky", "greedy"):
        some = Nystroem(kernel, n_components=40, landmarks=landmarks, tol=0.05, random_state=0).fit(x)
        assert some.trace_error_ <= 0.05
        assert 2 < len(some.components_) < 40


def test_rare_rows_are_found_where_uniform_draws_miss_them() -> None:
    rng = np.random.default_rng(0)
    x = np.vstack([0.3 * rng.standard_normal((990, 3)), 6 * rng.standard_normal((10, 3))])
    errors = {
        landmarks: np.median(
            [Nystroem(n_components=40, landmarks=landmarks, random_state=i).fit(x).trace_error_ for i in range(5)]
        )
        for landmarks in ("rpcholesky", "uniform")
    }
    assert errors["rpcholesky"] < errors["uniform"] / 5


def test_rows_come_back_from_their_features() -> None:
    x = make_circles(400, noise=0.02, random_state=0)[0]
    fitted = Nystroem(RBF(0.5), n_components=60, random_state=0).fit(x)
    again = fitted.inverse_transform(fitted.transform(x))
    assert np.abs(again - x).max() < 0.01
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(x[:5])), again[:5], atol=1e-9)


def test_no_more_of_the_matrix_is_computed_than_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    computed, between = [], RBF._between

    def counted(self: RBF, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        computed.append(len(x) * len(z))
        return between(self, x, z)

    monkeypatch.setattr(RBF, "_between", counted)
    n, k = 4000, 20
    Nystroem(n_components=k, random_state=0).fit(rows(n))
    assert sum(computed) <= 2 * n * k


def test_rows_far_apart_have_the_factor_of_the_kernel_written_out() -> None:
    x = np.vstack([rows(300), 40 * rows(20, 1)])
    points = Nystroem(RBF(0.7), n_components=100, random_state=0)
    matrix = Nystroem("precomputed", n_components=100, random_state=0)
    first, second = points.fit_transform(x), matrix.fit_transform(RBF(0.7)(x))
    np.testing.assert_array_equal(points.component_indices_, matrix.component_indices_)
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_bad_arguments_are_refused() -> None:
    for options in ({"landmarks": "kmeans"}, {"landmarks": rows(3)[:, :2]}, {"tol": 2.0}, {"n_components": 0}):
        with pytest.raises(Refused):
            Nystroem(**options).fit(rows())
    with pytest.raises(Refused, match="matrix of all pairs"):
        Nystroem("precomputed").fit(rows())
