"""Codes against all supports and the conditions of a minimum; atoms and the refit against least squares."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from eckart.errors import Refused
from eckart.estimators.beyond_l1_coding import (
    ThresholdDictionary,
    improved_atoms,
    learned_dictionary,
    penalty_of,
    refitted,
    thresholded_codes,
)

KINDS = ("soft", "half", "hard", "cel0")


def dictionary(rng: np.random.Generator, k: int = 7, p: int = 5) -> np.ndarray:
    atoms = rng.standard_normal((k, p))
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def test_soft_codes_are_those_of_the_lasso() -> None:
    rng = np.random.default_rng(0)
    atoms, y = dictionary(rng), rng.standard_normal((6, 5))
    codes = thresholded_codes(y, atoms, 0.3, "soft", tolerance=1e-12, max_iter=20000)
    for row, code in zip(y, codes, strict=True):
        lasso = Lasso(0.3 / 5, fit_intercept=False, tol=1e-14, max_iter=100000).fit(atoms.T, row)
        np.testing.assert_allclose(code, lasso.coef_, atol=1e-6)


@pytest.mark.parametrize(("kind", "within"), [("hard", 2.0), ("cel0", 1.2)])
def test_codes_that_count_are_least_squares_on_their_support_and_near_the_best_of_all(kind: str, within: float) -> None:
    rng = np.random.default_rng(1)
    atoms, y = dictionary(rng), 2 * rng.standard_normal((20, 5))
    codes = thresholded_codes(y, atoms, 0.5, kind, tolerance=1e-12, max_iter=20000)
    np.testing.assert_allclose(refitted(codes, y, atoms), codes, atol=1e-6)
    reached = 0.5 * np.square(y - codes @ atoms).sum(1) + 0.5 * np.count_nonzero(codes, axis=1)
    least = 0.5 * np.square(y).sum(1)
    for size in (1, 2, 3):
        for support in combinations(range(7), size):
            d = atoms[list(support)]
            rest = y - y @ np.linalg.pinv(d) @ d
            least = np.minimum(least, 0.5 * np.square(rest).sum(1) + 0.5 * size)
    assert (reached >= least - 1e-9).all()
    assert np.median(reached / least) < within


@pytest.mark.parametrize("kind", KINDS)
def test_one_threshold_means_the_same_for_all(kind: str) -> None:
    penalty = penalty_of(kind, 0.7)
    y = np.array([[0.699, 0.0, 0.0], [0.701, 0.0, 0.0]])
    codes = thresholded_codes(y, np.eye(3), penalty, kind)
    assert np.count_nonzero(codes, axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_rises(kind: str) -> None:
    rng = np.random.default_rng(2)
    solution = learned_dictionary(rng.standard_normal((60, 5)), 7, 0.2, kind, tolerance=0, max_iter=40, generator=0)
    assert (np.diff(solution.history) <= 1e-12 * solution.history[0]).all()
    assert len(solution.history) > 10
    atoms, codes = solution.value
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-12)
    assert 0 < np.count_nonzero(codes) < codes.size


def test_an_atom_is_the_best_on_the_sphere_given_the_others() -> None:
    rng = np.random.default_rng(3)
    codes, y, start = rng.standard_normal((30, 3)), rng.standard_normal((30, 4)), dictionary(rng, 3, 4)
    found = improved_atoms(start, codes, y, rng)
    least = np.square(y - codes @ found).sum()
    for _ in range(200):
        other = found.copy()
        other[2] += 0.3 * rng.standard_normal(4)
        other[2] /= np.linalg.norm(other[2])
        assert np.square(y - codes @ other).sum() >= least


def test_a_refit_is_least_squares_on_the_support_also_where_atoms_repeat() -> None:
    rng = np.random.default_rng(4)
    atoms = dictionary(rng)
    atoms[3] = atoms[0]
    codes = rng.standard_normal((9, 7)) * (rng.random((9, 7)) < 0.4)
    codes[0], codes[1, [0, 3]] = 0, 1
    y = rng.standard_normal((9, 5))
    found = refitted(codes, y, atoms)
    for row, code, start in zip(y, found, codes, strict=True):
        support = start != 0
        assert (code[~support] == 0).all()
        best = np.linalg.lstsq(atoms[support].T, row, rcond=None)[0]
        np.testing.assert_allclose(code[support], best, atol=1e-9)


def test_what_is_scaled_is_scaled_and_what_cannot_be_is_refused() -> None:
    x = np.random.default_rng(5).standard_normal((40, 6))
    one, other = (ThresholdDictionary(4, random_state=0, max_iter=5, tol=0.5).fit(c * x) for c in (1.0, 2.0**40))
    np.testing.assert_allclose(other.components_, one.components_, atol=1e-12)
    np.testing.assert_allclose(other.transform(x * 2.0**40), one.transform(x) * 2.0**40, rtol=1e-9)
    with pytest.raises(Refused, match="threshold=-1"):
        ThresholdDictionary(threshold=-1).fit(x)
