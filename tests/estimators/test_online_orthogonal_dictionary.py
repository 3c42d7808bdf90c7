"""Orthogonal dictionaries: the step written out, white rows, streams against tables, and the best k terms."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators.online_orthogonal_dictionary import (
    OrthogonalDictionary,
    ascent,
    frank_wolfe_step,
    largest_entries,
    matching_stretching_projection,
    symmetric_roots,
)


def sparse_rows(rng: np.random.Generator, n: int, p: int = 8) -> tuple[np.ndarray, np.ndarray]:
    atoms = np.linalg.qr(rng.standard_normal((p, p)))[0]
    return (rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.2)) @ atoms, atoms


def apart(atoms: np.ndarray, found: np.ndarray) -> float:
    return float(1 - np.abs(atoms @ found.T).max(axis=1).mean())


def test_the_ascent_is_a_third_of_the_gradient() -> None:
    rng = np.random.default_rng(0)
    y, d, way = rng.standard_normal((20, 4)), rng.standard_normal((4, 4)), rng.standard_normal((4, 4))

    def objective(t: float) -> float:
        return float((np.abs(y @ (d + t * way)) ** 3).sum() / 20)

    numeric = (objective(1e-5) - objective(-1e-5)) / 2e-5
    assert 3 * (ascent(y, d) * way).sum() == pytest.approx(numeric, rel=1e-7)


def test_steps_stay_in_the_ball_and_come_nearer_with_more_batches() -> None:
    rng = np.random.default_rng(1)
    y, atoms = sparse_rows(rng, 32 * 1000)
    d, gradient, errors = np.linalg.qr(rng.standard_normal((8, 8)))[0], np.zeros((8, 8)), {}
    for t, batch in enumerate(np.split(y * np.sqrt(5), 1000), 1):
        d, gradient = frank_wolfe_step(batch, d, gradient, t)
        assert np.linalg.norm(d, 2) <= 1 + 1e-12
        if t in (10, 100, 1000):
            errors[t] = apart(atoms, d.T)
    assert errors[1000] < errors[100] < errors[10]
    assert errors[1000] < 0.01


def test_the_fixed_point_never_falls_and_ends_at_what_was_planted() -> None:
    y, atoms = sparse_rows(np.random.default_rng(2), 4000)
    solution = matching_stretching_projection(y, tolerance=1e-12, generator=0)
    assert (np.diff(solution.history) >= -1e-12).all()
    assert apart(atoms, solution.value.T) < 0.005
    np.testing.assert_allclose(solution.value.T @ solution.value, np.eye(8), atol=1e-12)


def test_roots_of_a_singular_moment() -> None:
    a = np.random.default_rng(3).standard_normal((5, 3))
    inverse, root = symmetric_roots(a @ a.T)
    np.testing.assert_allclose(root @ root, a @ a.T, atol=1e-12)
    np.testing.assert_allclose(inverse @ root, a @ np.linalg.pinv(a), atol=1e-7)


def test_a_stream_of_mixed_rows_is_whitened_as_it_comes() -> None:
    rng = np.random.default_rng(4)
    y, atoms = sparse_rows(rng, 20000)
    mixing = np.eye(8) + 0.5 * np.diag(np.ones(7), 1)
    mixing = mixing @ mixing.T
    streamed = OrthogonalDictionary(random_state=0)
    for batch in np.split(y @ mixing + 3.0, 200):
        streamed.partial_fit(batch)
    x = y @ mixing + 3.0
    np.testing.assert_allclose(streamed.mean_, x.mean(0), rtol=1e-10)
    whole = OrthogonalDictionary(random_state=0).fit(x)
    planted = atoms @ mixing
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    for fitted, within in ((streamed, 0.02), (whole, 0.01)):
        found = fitted.components_ / np.linalg.norm(fitted.components_, axis=1, keepdims=True)
        assert apart(planted, found) < within
        np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(x[:9])), x[:9], atol=1e-10)
        np.testing.assert_allclose(fitted.orthogonal_ @ fitted.orthogonal_.T, np.eye(8), atol=1e-12)


def test_the_largest_terms_are_the_best_ones() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 5))
    fitted = OrthogonalDictionary(2, whiten=False, random_state=0).fit(x)
    error = np.square(fitted.inverse_transform(fitted.transform(x)) - x).sum(1)
    centred, best = x - x.mean(0), np.inf
    for pair in combinations(range(5), 2):
        d = fitted.components_[list(pair)]
        best = np.minimum(best, np.square(centred - centred @ d.T @ d).sum(1))
    np.testing.assert_allclose(error, best, rtol=1e-9)
    assert largest_entries(x, 9) is x


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="n_nonzero=0"):
        OrthogonalDictionary(0).fit(np.eye(4))


def test_parts_of_dask_are_learned_from_and_coded_one_after_the_other() -> None:
    array = pytest.importorskip("dask.array")
    rng = np.random.default_rng(0)
    x = 1 + rng.standard_normal((1500, 8)) * (rng.random((1500, 8)) < 0.2)
    parts = array.from_array(x, chunks=(500, 3))
    found = OrthogonalDictionary(method="online", batch_size=100, random_state=0).fit(parts)
    whole = OrthogonalDictionary(method="online", batch_size=100, random_state=0).fit(x)
    np.testing.assert_allclose(found.components_, whole.components_, rtol=1e-10)
    codes = found.transform(parts)
    assert codes.shape == x.shape
    assert codes.chunks[0] == (500, 500, 500)
    np.testing.assert_allclose(codes.compute(), found.transform(x))
    np.testing.assert_allclose(found.inverse_transform(codes).compute(), found.inverse_transform(found.transform(x)))
