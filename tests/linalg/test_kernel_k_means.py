"""k-means by inner products is k-means of points; silhouettes are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from eckart.errors import Refused
from eckart.linalg.kernel_k_means import kernel_distances, kernel_k_means, silhouette


def test_of_inner_products_it_is_k_means() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3)) + 9 * rng.standard_normal((3, 3))[np.arange(60) % 3]
    found = kernel_k_means(x @ x.T, 3, generator=0)
    theirs = KMeans(3, n_init=10, random_state=0).fit(x)
    assert found.converged
    assert found.error == pytest.approx(theirs.inertia_)
    far = kernel_distances(x @ x.T)
    np.testing.assert_allclose(far, np.square(x[:, None] - x).sum(-1), atol=1e-10)
    assert silhouette(np.sqrt(far), found.value) == pytest.approx(silhouette_score(x, found.value))


def test_coinciding_points_and_limits() -> None:
    same = kernel_k_means(np.ones((5, 5)), 3, generator=0)
    assert same.error == pytest.approx(0)
    assert len(np.unique(same.value)) == 1
    assert sorted(kernel_k_means(np.eye(4), 4, generator=0).value) == [0, 1, 2, 3]
    assert silhouette(np.zeros((3, 3)), np.zeros(3, int)) == 0
    assert silhouette(np.ones((3, 3)) - np.eye(3), np.arange(3)) == 0
    for k in (0, 5):
        with pytest.raises(Refused, match="clusters of 4 points"):
            kernel_k_means(np.eye(4), k)
    with pytest.raises(Refused, match="not square"):
        kernel_k_means(np.eye(4) * np.nan, 2)


def test_a_matrix_that_is_not_definite_ends_at_its_best() -> None:
    rng = np.random.default_rng(1)
    k = rng.standard_normal((30, 30))
    found = kernel_k_means(k + k.T, 4, generator=0)
    assert found.converged
    assert found.error <= min(found.history) + 1e-9
