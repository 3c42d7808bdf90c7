"""Forests on rotated features: the rotations, and trees that say what scikit-learn's say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from eckart.errors import Refused
from eckart.estimators.rotation_forest import (
    RotationForest,
    haar_rotation,
    principal_axes,
    rotation_of,
    sparse_projection,
)


def slanted(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((n, 5))
    return x, np.where(x.sum(1) > 0, "up", "down")


def test_rotations_are_orthogonal_and_groups_stay_apart() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 7))
    for found in (haar_rotation(7, rng), principal_axes(x, 3, rng), rotation_of("none", x, 3, rng)):
        np.testing.assert_allclose(found.T @ found, np.eye(7), atol=1e-12)
    assert (np.count_nonzero(principal_axes(x, 3, rng), axis=0) <= 3).all()


def test_haar_rotations_have_no_preferred_sign_nor_direction() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([haar_rotation(3, rng) for _ in range(3000)])
    assert np.abs(drawn.mean(0)).max() < 4 / np.sqrt(3 * 3000)
    np.testing.assert_allclose((drawn**2).mean(0), 1 / 3, atol=0.03)


def test_sparse_projections_keep_squares_on_average() -> None:
    rng = np.random.default_rng(2)
    drawn = np.array([sparse_projection(6, rng) for _ in range(2000)])
    assert (drawn == 0).mean() == pytest.approx(2 / 3, abs=0.01)
    np.testing.assert_allclose((drawn**2).sum(2).mean(0), 1, atol=0.1)


def test_without_rotation_it_is_the_mean_of_trees_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    x, y = slanted(150, rng)
    new, _ = slanted(80, rng)
    fitted = RotationForest("none", n_members=2, n_trees=4, random_state=7).fit(x, y)
    draws = np.random.default_rng(7)
    said = []
    for _ in range(8):
        counts = np.bincount(draws.integers(0, 150, 150), minlength=150).astype(float)
        tree = DecisionTreeClassifier(max_features="sqrt", random_state=int(draws.integers(2**31)))
        said.append(tree.fit((x - x.mean(0)) / x.std(0), y, counts).predict_proba((new - x.mean(0)) / x.std(0)))
    np.testing.assert_allclose(fitted.predict_proba(new), np.mean(said, axis=0), atol=1e-12)
    assert fitted.classes_.tolist() == ["down", "up"]


def test_without_rotation_it_is_as_good_as_a_random_forest() -> None:
    rng = np.random.default_rng(6)
    (x, y), (new, truth) = slanted(300, rng), slanted(1000, rng)
    ours = RotationForest("none", n_members=4, n_trees=10, random_state=0).fit(x, y).score(new, truth)
    theirs = RandomForestClassifier(40, random_state=0).fit(x, y).score(new, truth)
    assert ours == pytest.approx(theirs, abs=0.04)


def test_a_tree_that_looks_at_all_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(8)
    (x, y), (new, _) = slanted(120, rng), slanted(60, rng)
    shape = {"max_features": None, "bootstrap": False, "max_depth": 3}
    fitted = RotationForest("none", n_members=1, n_trees=1, **shape, random_state=0).fit(x, y)
    one, other = ((each - x.mean(0)) / x.std(0) for each in (x, new))
    seed = int(np.random.default_rng(0).integers(2**31))
    tree = DecisionTreeClassifier(max_depth=3, random_state=seed).fit(one, y)
    np.testing.assert_allclose(fitted.predict_proba(new), tree.predict_proba(other), atol=1e-12)
    turned = RotationForest(n_members=3, n_trees=1, **shape, random_state=0).fit(x, y)
    assert not np.allclose(*turned.rotations_[:2])


def test_a_slanted_border_is_easier_for_rotated_trees() -> None:
    rng = np.random.default_rng(4)
    (x, y), (new, truth) = slanted(300, rng), slanted(1000, rng)
    scores = {kind: RotationForest(kind, random_state=0).fit(x, y).score(new, truth) for kind in ("none", "haar")}
    assert scores["haar"] > scores["none"]


def test_units_of_features_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    x, y = slanted(100, rng)
    units = 2.0 ** np.array([0, 10, -30, 200, 3])
    one, other = (RotationForest(random_state=0).fit(each, y).predict_proba(each) for each in (x, x * units))
    np.testing.assert_array_equal(one, other)


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="rotation='spin'"):
        RotationForest("spin").fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(Refused, match=r"max_features=0\.5"):
        RotationForest(max_features=0.5).fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(Refused, match=r"n_trees=1\.5"):
        RotationForest(n_trees=1.5).fit(np.eye(4), [0, 1, 0, 1])


@pytest.mark.parametrize("bootstrap", [True, False])
def test_weights_are_as_many_samples(bootstrap: bool) -> None:
    rng = np.random.default_rng(4)
    x, y = slanted(60, rng)
    new, _ = slanted(200, rng)
    weights = rng.integers(0, 4, 60)
    # What has no weight is as if it were not there.
    options: dict = {"n_members": 20, "n_trees": 10, "bootstrap": bootstrap, "random_state": 0}
    some = RotationForest(**options).fit(x, y, np.where(weights > 0, 1.0, 0.0)).predict_proba(new)
    x_there, y_there = x[weights > 0], y[weights > 0]
    np.testing.assert_allclose(
        some, RotationForest(**options).fit(x_there, y_there, np.ones(len(x_there))).predict_proba(new)
    )
    # And twice a weight is as two samples: in means exactly, in what is drawn by chance.
    y = np.where(rng.random(60) < 0.3, "up", "down")
    often = np.where(y == "up", 6, 1)
    weighted = RotationForest(max_depth=2, **options).fit(x, y, often)
    repeated = RotationForest(max_depth=2, **options).fit(x.repeat(often, axis=0), y.repeat(often))
    plain = RotationForest(max_depth=2, **options).fit(x, y)
    np.testing.assert_allclose(weighted.mean_, repeated.mean_)
    np.testing.assert_allclose(weighted.scale_, repeated.scale_)
    shares = [each.predict_proba(new)[:, 1].mean() for each in (weighted, repeated, plain)]
    assert abs(shares[0] - shares[1]) < 0.2 * abs(shares[2] - shares[1])
