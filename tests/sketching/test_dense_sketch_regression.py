"""Sketched least squares against the solution, and its error bars against its errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.linalg.sketches import sketch_of
from eckart.sketching.dense_sketch_regression import sketched_lstsq


def problem(n: int = 128, d: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, d))
    b = a @ rng.standard_normal(d) + rng.standard_normal(n)
    return a, b, np.linalg.lstsq(a, b, rcond=None)[0]


@pytest.mark.parametrize("kind", ["srht", "sparse-sign", "gaussian", "count"])
def test_it_solves_the_sketch(kind: str) -> None:
    a, b, _ = problem()
    s = sketch_of(kind, 40, 128, 3)
    expected = np.linalg.lstsq(s.apply(a), s.apply(b), rcond=None)[0]
    for given in (a, sparse.csr_array(a)):
        found = sketched_lstsq(given, b, size=40, sketch=kind, generator=3)
        np.testing.assert_allclose(found.value, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["srht", "sparse-sign", "gaussian", "count"])
@pytest.mark.parametrize("size", [128, 1000])
def test_as_many_rows_as_there_are_are_all_rows(kind: str, size: int) -> None:
    a, b, exact = problem()
    for given in (a, sparse.csr_array(a)):
        found = sketched_lstsq(given, b, size=size, sketch=kind)
        np.testing.assert_allclose(found.value, exact, rtol=1e-10)
        assert not found.error.any()
    with pytest.raises(Refused, match="3 rows do not determine 5"):
        sketched_lstsq(a[:3], b[:3])


@pytest.mark.parametrize("scale", [1.0, 2.0**-400])
def test_blocks_of_dask_are_the_whole(scale: float) -> None:
    dask_array = pytest.importorskip("dask.array")
    a, b, exact = problem()
    parts = dask_array.from_array(a * scale, chunks=(50, 3))
    for options in ({"size": 40}, {"size": 40, "refine": True}, {"size": 40, "repeats": 3}, {"size": 128}):
        found = sketched_lstsq(parts, dask_array.from_array(b), generator=0, **options)
        whole = sketched_lstsq(a * scale, b, generator=0, **options)
        np.testing.assert_allclose(found.value, whole.value, rtol=1e-9)
    np.testing.assert_allclose(found.value * scale, exact, rtol=1e-9)
    with pytest.raises(Refused, match="use SparseSign"):
        sketched_lstsq(parts, b, size=40, sketch="srht")
    with pytest.raises(Refused, match="NaN"):
        sketched_lstsq(dask_array.where(parts > 0, parts, np.nan), b)


def test_refinement_is_exact() -> None:
    a, b, _ = problem()
    bad = a * np.logspace(0, -6, 5)
    found = sketched_lstsq(bad, b, size=40, refine=True, generator=0)
    assert found.converged
    assert found.iterations < 60
    np.testing.assert_allclose(found.value, np.linalg.lstsq(bad, b, rcond=None)[0], rtol=1e-7)


def test_errors_are_as_large_as_stated_and_means_are_right() -> None:
    """|x' - x*| within 1.96 standard errors in 95 % of coordinates: 2000 of them, 5 sigma being 2.5 %."""
    a, b, exact = problem()
    found = [sketched_lstsq(a, b, size=40, sketch="gaussian", generator=seed) for seed in range(400)]
    z = np.array([(each.value - exact) / each.error for each in found])
    assert 0.9 < (np.abs(z) < 2.03).mean() < 0.985
    values = np.array([each.value for each in found])
    assert (np.abs(values.mean(0) - exact) < 5 * values.std(0) / 20).all()
    many = sketched_lstsq(a, b, size=40, repeats=16, generator=0)
    assert (many.error < 0.5 * found[0].error).all()


def test_what_does_not_determine_them_is_refused() -> None:
    a, b, _ = problem()
    for bad in (a[:, [0, 0]], np.zeros((128, 2))):
        with pytest.raises(Refused, match="full column rank"):
            sketched_lstsq(bad, b)
    with pytest.raises(Refused, match="size=5"):
        sketched_lstsq(a, b, size=5)
    with pytest.raises(Refused, match="128 rows, and b 3"):
        sketched_lstsq(a, b[:3])
