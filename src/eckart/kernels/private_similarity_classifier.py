"""Classes by their mean similarity to private points."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import back
from eckart.kernels._private import Private, release
from eckart.kernels.contract import kernel_method
from eckart.scikit.base import generator_from
from eckart.scikit.door import ClassifierMixin
from eckart.scikit.planted import Planted


def _planted(rng: np.random.Generator) -> Planted:
    y = rng.integers(0, 3, 600)
    centres = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])
    x, new, truth = centres[y] + rng.standard_normal((600, 2)), centres + 0.3, np.arange(3)
    return Planted(
        {"X": x, "y": y},
        lambda fitted: np.mean(fitted.predict(new) != truth),
        0.0,
        {"gamma": 0.5, "n_features": 300},
        {"scale": "the width of the kernel is in units of X"},
    )


@kernel_method(
    "private-similarity-classifier",
    paper="Backurs, Lin, Mahabadi, Silwal and Tarnawski 2024, arXiv 2403.08917",
    kind="classifier",
    gives="classes by mean similarity to private points",
    planted=_planted,
)
class PrivateSimilarityClassifier(ClassifierMixin, Private):
    """The class to whose private points a row is most alike on average, told once with noise.

    A point is of one class, so that what is told of all classes together costs epsilon once (neighbours differ by one
    labelled point). The names of the classes are taken to be public. "sqeuclidean" is the nearest mean, from d + 2
    numbers a class. Nothing is trained: one sum over the data.

    Args:
        kernel: as in `PrivateKernelSum`.
        epsilon: of everything that is told.
        delta: of it; 0 for noise of Laplace.
        gamma: of the kernel; 1 / features where it is None.
        neighbours: "add-remove" a point, or "replace" one, which takes twice the noise.
        bounds: as in `PrivateKernelSum`.
        n_features: of a kernel.
        levels: of intervals of "l1".
        random_state: of features and noise; who knows it knows the noise.

    Attributes:
        classes_: (classes,).
        told_: with noise, (classes, size).
        counts_: of the points of each class, by what was told, at least 1.
        frequencies_: (n_features / 2, features).
        privacy_: as in `PrivateKernelSum`.
    """

    def fit(self, X: Any, y: Any) -> PrivateSimilarityClassifier:
        """Tells of X (samples, features) and their classes y (samples,), once; itself."""
        from sklearn.utils.multiclass import check_classification_targets

        table, target = self._table(X, fit=True, y=y)
        check_classification_targets(target)
        rng = generator_from(self.random_state)
        self.classes_, codes = np.unique(target, return_inverse=True)
        self._draw(table.shape[1], rng)
        map_ = self._map_of(table.shape[1])
        told = []
        for code in range(len(self.classes_)):
            each, self.privacy_ = release(
                map_.total(table[codes == code]), map_, self.epsilon, self.delta, self.neighbours, rng
            )
            told.append(each)
        self.told_ = np.stack(told)
        self.counts_ = np.array([max(map_.count(each), 1.0) for each in told])
        return self

    def predict(self, X: Any) -> Any:
        """The class of greatest mean similarity, or of least mean distance, (samples,)."""
        table = self._table(X)
        map_ = self._map_of(table.shape[1])
        sums = np.stack([map_.answer(table, each) for each in self.told_], 1)
        means = sums / self.counts_ * (-1 if self.kernel in ("l1", "sqeuclidean") else 1)
        found = self.classes_[means.argmax(1)]
        return back(found, X) if found.dtype.kind in "biuf" else found
