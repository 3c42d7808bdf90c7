"""Classes by private means: right where they stand apart, with as many points as there are."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.kernels.private_similarity_classifier import PrivateSimilarityClassifier


def test_classes_by_their_means() -> None:
    rng = np.random.default_rng(6)
    y = np.where(rng.random(600) < 0.3, "few", "many")
    x = rng.standard_normal((600, 4)) + np.where(y == "few", 1.5, -0.5)[:, None]
    for options in ({"kernel": "rbf", "gamma": 0.1}, {"kernel": "sqeuclidean", "bounds": 6.0}):
        fitted = PrivateSimilarityClassifier(random_state=0, epsilon=2.0, **options).fit(x, y)
        assert fitted.score(x, y) > 0.9
        assert fitted.counts_[0] == pytest.approx((y == "few").sum(), abs=40)
