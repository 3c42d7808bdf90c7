"""Matrix sensing: rates of the paper, where a step is rescaled, and what is sensed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.matrix_sensing import best_step, rescaled_factors, sense_matrix
from eckart.linalg.measurements import EntryMeasurements, RankOneMeasurements


def low_rank(rng: np.random.Generator, n1: int, n2: int, r: int) -> np.ndarray:
    return rng.standard_normal((n1, r)) @ rng.standard_normal((r, n2))


def sensed(n: int = 10, m: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((n, 2)))[0]
    truth = (u * [1.0, 0.6]) @ u.T
    a = rng.standard_normal((m, n, n))
    return a, np.einsum("mij,ij->m", a, truth), truth


def test_a_rescaled_product_is_the_same_and_its_first_factor_balanced() -> None:
    rng = np.random.default_rng(1)
    f, g = rng.standard_normal((6, 3)), rng.standard_normal((5, 3))
    balanced, other = rescaled_factors(f, g, 0.7)
    np.testing.assert_allclose(balanced @ other.T, f @ g.T)
    np.testing.assert_allclose(balanced.T @ balanced, 0.49 * np.eye(3), atol=1e-12)


def test_the_best_step_is_the_minimum_on_a_grid() -> None:
    rng = np.random.default_rng(2)
    grid = np.linspace(0, 4, 40001)[:, None]
    for _ in range(5):
        r, quadratic = rng.standard_normal((2, 8))
        linear = r + 0.3 * rng.standard_normal(8)
        values = np.linalg.norm(r - grid * linear + grid**2 * quadratic, axis=1)
        assert abs(best_step(r, linear, quadratic) - grid[np.argmin(values), 0]) < 2e-4


def test_symmetric_descent_is_sublinear_and_two_factors_are_linear_with_the_start_in_the_rate() -> None:
    a, y, truth = sensed()

    def errors(**options: object) -> np.ndarray:
        return np.array(sense_matrix(a, y, 4, generator=0, max_iter=800, tolerance=1e-12, **options).history)

    symmetric = errors(method="gd", symmetric=True)
    assert 0.3 < symmetric[800] / symmetric[400] < 0.7  # 1/T: a half
    wide, narrow = errors(method="gd", start=1.0), errors(method="gd", start=0.1)
    assert wide[400] < 0.1 * narrow[400]
    rescaled = errors(method="rescaled", start=0.1)
    assert rescaled[400] < 0.1 * narrow[400]
    fast = sense_matrix(a, y, 4, tolerance=1e-9, generator=0)
    assert fast.converged
    assert fast.iterations < 200
    np.testing.assert_allclose(fast.value.dense(), truth, atol=1e-7)


def test_the_basin_is_said_where_it_is_reached_and_where_not() -> None:
    a, y, _ = sensed()
    assert "rescaled at step" in sense_matrix(a, y, 4, method="rescaled", max_iter=60, generator=0).message
    noise = 3 * np.linalg.norm(y) / len(y) ** 0.5 * np.random.default_rng(0).standard_normal(len(y))
    lost = sense_matrix(a, y + noise, 2, method="rescaled", max_iter=50, basin=1e-3, generator=0)
    assert "never near enough" in lost.message


@pytest.mark.parametrize("symmetric", [False, True])
def test_pairs_of_vectors_and_places_are_sensed_too(symmetric: bool) -> None:
    rng = np.random.default_rng(3)
    truth = low_rank(rng, 14, 14, 2)
    truth = truth @ truth.T if symmetric else truth
    a, b = rng.standard_normal((260, 14)), rng.standard_normal((260, 14))
    y = np.einsum("mi,ij,mj->m", a, truth, b)
    found = sense_matrix(RankOneMeasurements(a, b), y, 3, symmetric=symmetric, generator=0)
    np.testing.assert_allclose(found.value.dense(), truth, atol=1e-4 * np.abs(truth).max())
    for scale in (2.0**-500, 2.0**500):
        scaled = sense_matrix(RankOneMeasurements(a * scale, b), y, 3, symmetric=symmetric, generator=0)
        np.testing.assert_allclose(scaled.value.values * scale, found.value.values, rtol=1e-9)
    rows, columns = np.divmod(rng.permutation(196)[:150], 14)
    entries = EntryMeasurements(rows, columns, (14, 14))
    found = sense_matrix(entries, truth[rows, columns], 2, symmetric=symmetric, generator=0)
    np.testing.assert_allclose(found.value.dense(), truth, atol=1e-4 * np.abs(truth).max())


def test_noise_ends_near_the_best_that_the_truth_would_explain() -> None:
    a, y, truth = sensed()
    noise = 0.05 * np.linalg.norm(y) / len(y) ** 0.5 * np.random.default_rng(4).standard_normal(len(y))
    found = sense_matrix(a, y + noise, 2, generator=0)
    assert found.converged
    assert found.error <= np.linalg.norm(noise) / np.linalg.norm(y + noise)
    assert np.linalg.norm(found.value.dense() - truth) < 0.05 * np.linalg.norm(truth)


def test_what_cannot_be_met_is_refused() -> None:
    a, y, _ = sensed()
    for options, words in (
        ({"rank": 11}, "rank=11"),
        ({"rank": 2, "symmetric": True, "method": "rescaled"}, "rescaled takes two factors"),
        ({"rank": 2, "step": -1.0}, "step=-1.0"),
        ({"rank": 2, "method": "newton"}, "method='newton'"),
    ):
        with pytest.raises(Refused, match=words):
            sense_matrix(a, y, **options)  # type: ignore[arg-type]
    assert not sense_matrix(a, 0 * y, 2).value.dense().any()
    tensors = sense_matrix(torch.from_numpy(a), torch.from_numpy(y), 2, generator=0)
    np.testing.assert_array_equal(tensors.history, sense_matrix(a, y, 2, generator=0).history)


def test_the_scale_of_the_measurements_divides_the_matrix() -> None:
    a, y, _ = sensed()
    found = sense_matrix(a, y, 3).value
    scaled = sense_matrix(a * 2.0**500, y, 3).value
    np.testing.assert_allclose(scaled.values, found.values * 2.0**-500, rtol=1e-9)
