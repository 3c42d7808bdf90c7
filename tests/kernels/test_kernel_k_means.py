"""k-means in a kernel's distances: k-means of scikit-learn for the inner product, and matrices that are handed in."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from eckart.errors import Refused
from eckart.kernels.kernel_k_means import KernelKMeans


def test_the_linear_kernel_is_k_means_to_predict_too() -> None:
    rng = np.random.default_rng(0)
    centres = 9 * rng.standard_normal((3, 2))
    x, new = (rng.standard_normal((60, 2)) + centres[rng.integers(3, size=60)] for _ in range(2))
    ours = KernelKMeans(3, kernel="linear", random_state=0).fit(x)
    theirs = KMeans(3, n_init=10, random_state=0).fit(x)
    assert ours.inertia_ == pytest.approx(theirs.inertia_)
    names = {(a, b) for a, b in zip(ours.predict(new), theirs.predict(new), strict=True)}
    assert len(names) == 3


def test_a_matrix_handed_in_is_the_kernel() -> None:
    x = np.random.default_rng(1).standard_normal((30, 2))
    one = KernelKMeans(3, kernel="linear", random_state=0).fit(x)
    other = KernelKMeans(3, kernel="precomputed", random_state=0).fit(x @ x.T)
    np.testing.assert_array_equal(one.labels_, other.labels_)
    np.testing.assert_array_equal(one.predict(x[:4]), other.predict(x[:4] @ x.T))
    with pytest.raises(Refused, match="not square"):
        KernelKMeans(2, kernel="precomputed").fit(x)
    with pytest.raises(Refused, match="n_clusters=31"):
        KernelKMeans(31).fit(x)


def test_a_far_mean_changes_no_cluster_and_rounding_is_no_distance() -> None:
    x = np.random.default_rng(2).standard_normal((60, 2)) + 9 * np.arange(60)[:, None] % 27
    near, far = (KernelKMeans(3, kernel="linear", random_state=0).fit(x + c) for c in (0.0, 1e8))
    assert far.inertia_ == pytest.approx(near.inertia_, rel=1e-6)
    np.testing.assert_array_equal(far.labels_, near.labels_)
    np.testing.assert_array_equal(far.predict(x + 1e8), near.labels_)
    with pytest.raises(Refused, match="rounding: centre X"):
        KernelKMeans(3, kernel="precomputed").fit((x + 1e8) @ (x + 1e8).T)
    with pytest.raises(Refused, match="semi-definite"):
        KernelKMeans(2, kernel="precomputed").fit(1 - np.eye(3))
    with pytest.raises(Refused, match="is no Kernel"):
        KernelKMeans(2, kernel=np.eye(60)).fit(x)


def test_options_that_change_after_fitting_change_no_prediction() -> None:
    x = np.random.default_rng(3).standard_normal((20, 2))
    fitted = KernelKMeans(3, random_state=0).fit(x)
    labels = fitted.predict(x)
    np.testing.assert_array_equal(fitted.set_params(kernel="linear").predict(x), labels)
