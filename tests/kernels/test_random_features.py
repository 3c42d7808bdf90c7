"""Random features: right on average, as far off as they may be, and better where directions are spread evenly."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_approximation import RBFSampler

from eckart.errors import Refused
from eckart.kernels import Laplacian, Linear
from eckart.kernels.matern import Matern
from eckart.kernels.random_features import RandomFeatures
from eckart.kernels.rational_quadratic import RationalQuadratic
from eckart.kernels.rbf import RBF

X = 0.7 * np.random.default_rng(0).standard_normal((12, 4))


def products(kind: str, kernel: object, count: int, draws: int) -> np.ndarray:
    found = []
    for seed in range(draws):
        features = RandomFeatures(kernel, n_components=count, kind=kind, random_state=seed).fit_transform(X)
        assert features.shape == (12, count)
        found.append(features @ features.T)
    return np.stack(found)


def arccosine(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1)
    t = np.arccos(np.clip(x @ x.T / np.outer(norms, norms), -1, 1))
    return np.outer(norms, norms) * (np.sin(t) + (np.pi - t) * np.cos(t)) / np.pi


CASES = {
    "rff": ("rff", 2.0 * Laplacian(2.0)),
    "rff of an angle": ("rff", RBF([1.0, 2.0, 0.5, 1.0])),
    "orthogonal": ("orthogonal", RBF([1.0, 2.0, 0.5, 1.0])),
    "orthogonal Matern": ("orthogonal", 3.0 * Matern(1.5, 1.2)),
    "rff of an odd number": ("rff", RBF(1.1)),
    "qmc": ("qmc", RBF(1.1)),
    "qmc rational quadratic": ("qmc", RationalQuadratic(1.5, 1.2)),
    "positive": ("positive", 2.0 * RBF([2.0, 3.0, 2.5, 2.0])),
    "arccos": ("arccos", None),
}


@pytest.mark.parametrize("name", CASES)
def test_products_are_the_kernel_on_average(name: str) -> None:
    kind, kernel = CASES[name]
    draws = products(kind, kernel, 7 if "odd" in name else 32, 100)
    expected = arccosine(X) if kernel is None else kernel(X)
    spread = draws.std(0) / np.sqrt(len(draws)) + 1e-9
    assert (np.abs(draws.mean(0) - expected) < 5 * spread).all()


def error(kind: str, kernel: object, count: int) -> float:
    return float(np.sqrt(np.square(products(kind, kernel, count, 20) - kernel(X)).mean()))


def test_errors_fall_as_the_root_and_faster_with_points_of_low_discrepancy() -> None:
    kernel = RBF(1.1)
    few, many = error("rff", kernel, 64), error("rff", kernel, 1024)
    assert 3 < few / many < 5.3
    assert error("orthogonal", kernel, 8) < 0.8 * error("rff", kernel, 8)
    assert error("qmc", kernel, 1024) < 0.4 * many
    assert error("qmc", Matern(2.5, 1.1), 1024) < 0.5 * error("rff", Matern(2.5, 1.1), 1024)
    peer = [RBFSampler(gamma=1 / (2 * 1.1**2), n_components=64, random_state=i).fit_transform(X) for i in range(20)]
    theirs = np.sqrt(np.mean([np.square(f @ f.T - kernel(X)).mean() for f in peer]))
    assert few < theirs


def test_positive_features_are_and_small_values_of_the_kernel_stay_small() -> None:
    x = np.array([[1.5, 0.0], [-1.5, 0.0]])
    kernel = RBF(1.0)
    far = float(kernel(x)[0, 1])
    errors = {}
    for kind in ("positive", "rff"):
        drawn = [RandomFeatures(kernel, n_components=64, kind=kind, random_state=i).fit_transform(x) for i in range(50)]
        errors[kind] = np.sqrt(np.mean([(f[0] @ f[1] - far) ** 2 for f in drawn]))
        assert (kind == "rff") == bool((np.stack(drawn) < 0).any())
    assert errors["positive"] < 0.1 * errors["rff"]


def test_bad_arguments_are_refused() -> None:
    wrong = (
        {"kind": "fastfood"},
        {"kernel": Linear()},
        {"kernel": Linear(), "kind": "rff"},
        {"kernel": Laplacian(1.0), "kind": "qmc"},
        {"kernel": Matern(1.5), "kind": "positive"},
        {"kernel": "rbf", "kind": "arccos"},
        {"kernel": "precomputed"},
    )
    for options in wrong:
        with pytest.raises(Refused):
            RandomFeatures(**options).fit(X)


def test_options_that_change_after_fitting_change_no_feature() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3))
    fitted = RandomFeatures(n_components=7, random_state=0).fit(x)
    before = fitted.transform(x)
    fitted.set_params(n_components=4, kind="arccos")
    np.testing.assert_array_equal(fitted.transform(x), before)
    assert len(fitted.get_feature_names_out()) == 7
