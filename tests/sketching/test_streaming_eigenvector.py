"""Eigenvectors of streams against those of all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.scikit.files import load, save
from eckart.sketching.streaming_eigenvector import HeavyRows, TopEigenvector, top_eigenvector


def stream(heavy: int = 0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((600, 16)) * np.r_[2.5, np.ones(15)]
    if heavy:
        a[rng.choice(600, heavy, replace=False)] = 40 * np.eye(16)[5]
    return a


def correlation(a: np.ndarray, v: np.ndarray) -> float:
    return float((np.linalg.svd(a, full_matrices=False)[2][0] @ v) ** 2)


@pytest.mark.parametrize("method", ["frequent-directions", "heavy-rows"])
@pytest.mark.parametrize("heavy", [0, 4])
def test_the_vector_is_found(method: str, heavy: int) -> None:
    a = stream(heavy)
    found = top_eigenvector(a, 8, method=method, generator=0)
    assert np.linalg.norm(found.value) == pytest.approx(1)
    assert correlation(a, found.value) > 0.9
    blocks = top_eigenvector(iter(np.array_split(a, 17)), 8, method=method, generator=0)
    np.testing.assert_allclose(np.abs(blocks.value), np.abs(found.value), atol=1e-9)


@pytest.mark.parametrize("method", ["frequent-directions", "heavy-rows"])
def test_blocks_of_dask_are_a_stream(method: str) -> None:
    dask_array = pytest.importorskip("dask.array")
    a = stream()
    parts = dask_array.from_array(a, chunks=(130, 7))
    found = top_eigenvector(parts, 8, method=method, generator=0)
    np.testing.assert_allclose(found.value, top_eigenvector(a, 8, method=method, generator=0).value, atol=1e-9)
    blocks = np.split(a, [130, 260, 390, 520])
    fitted = TopEigenvector(8, method=method, random_state=0).fit(parts)
    expected = TopEigenvector(8, method=method, random_state=0)
    for block in blocks:
        expected.partial_fit(block)
    np.testing.assert_array_equal(fitted.component_, expected.component_)
    assert fitted.n_samples_seen_ == 600


def test_heavy_rows_have_to_be_kept_apart() -> None:
    """Median correlation over ten orders, with four long rows across the first direction of the others."""
    with_store, without = [], []
    for seed in range(10):
        a = stream(4, seed)
        with_store.append(correlation(a, top_eigenvector(a, 8, method="heavy-rows", generator=seed).value))
        held = HeavyRows(8, seed)
        held._memory = 10**-9  # no row is so heavy
        without.append(correlation(a, held.partial_fit(a).finished()))
    assert np.median(with_store) > 0.9
    assert np.median(without) < 0.8


def test_as_many_rows_as_there_are_is_exact() -> None:
    a = stream()[:6]
    assert correlation(a, top_eigenvector(a, 6).value) == pytest.approx(1)
    assert top_eigenvector(a, 6).error == 0
    assert top_eigenvector(np.zeros((3, 2)), 2).value.shape == (2,)
    with pytest.raises(Refused, match="without rows"):
        top_eigenvector([], 2)
    with pytest.raises(Refused, match="memory=0"):
        top_eigenvector(a, 0)


def test_rows_of_another_width_are_refused() -> None:
    rows = HeavyRows(3, 0).partial_fit(np.eye(4))
    with pytest.raises(Refused, match="rows of 5 numbers, and those before had 4"):
        rows.partial_fit(np.eye(5))


@pytest.mark.parametrize("method", ["frequent-directions", "heavy-rows"])
def test_the_estimator_is_the_function_block_by_block_and_goes_on_once_loaded(method: str, tmp_path: Path) -> None:
    a = stream(4)
    fitted = TopEigenvector(8, method=method, random_state=0).fit(a[:200])
    save(fitted, tmp_path / "half")
    for each in (fitted, load(tmp_path / "half")):
        each.partial_fit(a[200:])
        expected = top_eigenvector(a, 8, method=method, generator=0)
        np.testing.assert_allclose(each.component_, expected.value, atol=1e-9)
        assert each.n_samples_seen_ == 600
    if method == "frequent-directions":
        assert each.bound_ == pytest.approx(expected.error)
    np.testing.assert_allclose(fitted.transform(a)[:, 0], a @ fitted.component_)


@pytest.mark.parametrize("method", ["frequent-directions", "heavy-rows"])
@pytest.mark.parametrize("first", [0.0, 5e-324, 1e-200, 1e200])
def test_a_first_block_of_another_size_spoils_nothing(method: str, first: float) -> None:
    a, head = stream(), first * np.eye(16)[[3] * 5]
    fitted = TopEigenvector(8, method=method, random_state=0).partial_fit(head).partial_fit(a)
    assert correlation(head / first if first > 1 else a, fitted.component_) > 0.9
    assert np.isnan(fitted.bound_) or first > 1 or np.isfinite(fitted.bound_)
