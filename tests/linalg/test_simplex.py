"""Points of the simplex and quadratics on it, against a solver of constrained problems."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

from eckart.errors import Refused
from eckart.linalg.simplex import corners, on_simplex, positive, quadratic_programs


def test_the_nearest_point_of_the_simplex_meets_its_conditions() -> None:
    x = np.random.default_rng(0).standard_normal((50, 5)) * 2
    found = on_simplex(x)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert (found >= 0).all()
    # Where an entry is above 0 it moved by the same as the others; where it is 0 it moved by no less.
    shift = (x - found).max(axis=1, where=found > 0, initial=-np.inf)
    assert (np.where(found > 0, shift[:, None] - (x - found), 0) < 1e-12).all()
    assert (x <= shift[:, None] + 1e-12)[found == 0].all()


def test_quadratics_on_the_simplex_are_those_of_a_general_solver() -> None:
    rng = np.random.default_rng(1)
    root = rng.standard_normal((4, 4))
    gram, linear = root @ root.T + 0.01 * np.eye(4), rng.standard_normal((6, 4))
    found = quadratic_programs(gram, linear, on_simplex, np.full((6, 4), 0.25), tolerance=1e-12, max_iter=20000)
    for row, b in zip(found, linear, strict=True):
        best = minimize(
            lambda a, b=b: a @ gram @ a / 2 - a @ b,
            np.full(4, 0.25),
            jac=lambda a, b=b: gram @ a - b,
            bounds=[(0, None)] * 4,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(4)},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(row, best.x, atol=1e-5)


def test_quadratics_without_negative_entries_are_those_of_lawson_and_hanson() -> None:
    rng = np.random.default_rng(2)
    a, y = rng.standard_normal((9, 4)), rng.standard_normal((5, 9))
    found = quadratic_programs(a.T @ a, y @ a, positive, np.zeros((5, 4)), tolerance=1e-12, max_iter=20000)
    np.testing.assert_allclose(found, [nnls(a, row)[0] for row in y], atol=1e-8)


def test_corners_are_the_points_that_no_mixture_reaches() -> None:
    rng = np.random.default_rng(3)
    spectra = rng.uniform(0, 1, (3, 12))
    x = np.concatenate([rng.dirichlet(np.ones(3), 40) @ spectra, spectra])
    assert set(corners(x, 3).tolist()) == {40, 41, 42}
    with pytest.raises(Refused, match="n_samples = 43"):
        corners(x, 44)
