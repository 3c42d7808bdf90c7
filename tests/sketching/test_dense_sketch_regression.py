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


def test_all_rows_of_an_srht_and_refinement_are_exact() -> None:
    a, b, exact = problem()
    np.testing.assert_allclose(sketched_lstsq(a, b, size=128).value, exact, rtol=1e-10)
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
