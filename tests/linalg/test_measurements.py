"""Measurements by products against the matrices A_i themselves."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.measurements import DenseMeasurements, EntryMeasurements, RankOneMeasurements


def test_products_are_those_of_the_matrices() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 5)), rng.standard_normal((9, 4))
    rows, columns = rng.integers(0, 5, 9), rng.integers(0, 4, 9)
    picked = np.zeros((9, 5, 4))
    picked[np.arange(9), rows, columns] = 1
    full = rng.standard_normal((9, 5, 4))
    f, g, e, x, z = (rng.standard_normal(s) for s in ((5, 2), (4, 2), (9,), (4, 3), (5, 3)))
    for measure, matrices in (
        (DenseMeasurements(full), full),
        (RankOneMeasurements(a, b), np.einsum("mi,mj->mij", a, b)),
        (EntryMeasurements(rows, columns, (5, 4)), picked),
    ):
        assert measure.shape == (9, 5, 4)
        np.testing.assert_allclose(measure.of(f, g), np.einsum("mij,ij->m", matrices, f @ g.T))
        whole, adjoint = np.einsum("m,mij->ij", e, matrices), measure.adjoint(e)
        assert adjoint.shape == (5, 4)
        np.testing.assert_allclose(adjoint @ x, whole @ x, atol=1e-14)
        np.testing.assert_allclose(adjoint.T @ z, whole.T @ z, atol=1e-14)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(Refused, match="a row for each"):
        RankOneMeasurements(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(Refused, match="beyond a matrix"):
        EntryMeasurements(np.array([0, 5]), np.array([0, 1]), (5, 4))
    with pytest.raises(Refused, match="whole numbers"):
        EntryMeasurements(np.array([0.5]), np.array([0.0]), (5, 4))
