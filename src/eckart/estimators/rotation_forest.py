"""Forests on rotated features, each member in coordinates of its own."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from eckart.arrays import Dense, back
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.scikit.base import Estimator, at_least_one, generator_from, same_kind
from eckart.scikit.door import ClassifierMixin
from eckart.scikit.planted import Planted

Rotation = Literal["pca", "sparse", "haar", "none"]
BOOTSTRAP = 0.75
"""Of the samples, for the principal axes of a group (Rodriguez, Kuncheva and Alonso 2006)."""


def principal_axes(x: Dense, group: int, rng: np.random.Generator, weights: Dense | None = None) -> Dense:
    """A rotation (p, p): random groups of features, each on the principal axes of 75 % of the samples drawn for it."""
    p = x.shape[1]
    found = np.zeros((p, p))
    for features in np.array_split(rng.permutation(p), -(-p // group)):
        drawn = x[drawn_rows(len(x), max(2, int(BOOTSTRAP * len(x))), rng, weights)][:, features]
        drawn = drawn - drawn.mean(axis=0)
        found[np.ix_(features, features)] = np.linalg.eigh(drawn.T @ drawn)[1]
    return found


def sparse_projection(p: int, rng: np.random.Generator) -> Dense:
    """Entries sqrt(3/p) times +1, 0, -1 with odds 1 : 4 : 1 (Achlioptas 2003), (p, p); no rotation, but near one."""
    found: Dense = rng.choice([-1.0, 0.0, 0.0, 0.0, 0.0, 1.0], (p, p)) * np.sqrt(3 / p)
    return found


def haar_rotation(p: int, rng: np.random.Generator) -> Dense:
    """A uniform orthogonal matrix (p, p): Q of a Gaussian one, with R's diagonal positive (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((p, p)))
    found: Dense = q * np.sign(np.diagonal(r))
    return found


def drawn_rows(rows: int, count: int, rng: np.random.Generator, weights: Dense | None) -> Dense:
    """Indices (count,) of rows drawn with repetition, in proportion to their weights where there are some."""
    if weights is None:
        return rng.integers(0, rows, count)
    found: Dense = rng.choice(rows, count, p=weights / weights.sum())
    return found


def rotation_of(kind: Rotation, x: Dense, group: int, rng: np.random.Generator, weights: Dense | None = None) -> Dense:
    """The matrix (p, p) by which a member sees x (n, p), x @ it."""
    p = x.shape[1]
    if kind == "pca":
        return principal_axes(x, group, rng, weights)
    if kind == "sparse":
        return sparse_projection(p, rng)
    return haar_rotation(p, rng) if kind == "haar" else np.eye(p)


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.standard_normal((300, 4))
    y = (x @ [1.0, -1.0, 0.7, 0.0] > 0).astype(int)
    new = rng.standard_normal((300, 4))
    return Planted(
        {"X": x, "y": y},
        lambda fitted: np.mean(fitted.predict(new) != (new @ [1.0, -1.0, 0.7, 0.0] > 0)),
        0.12,
        {"rotation": "haar"},
        {
            "order of rows": "samples of a tree are drawn by their places",
            "order of columns": "rotations are drawn, feature by feature",
        },
    )


@estimator(
    "rotation-forest",
    paper="Land use/land cover classification of fused Sentinel-1 and Sentinel-2 imageries using ensembles of Random "
    "Forests, 2023; Rodríguez, Kuncheva and Alonso 2006",
    kind="classifier",
    gives="classes and their probabilities",
    planted=_planted,
)
class RotationForest(ClassifierMixin, Estimator):
    """An ensemble of random forests, each on features that are rotated in its own way.

    Trees cut along axes; a rotation turns the axes, so that slanted borders cost fewer cuts, and members differ more.
    Features are standardised first. Where single features mean something (categories, counts) rotations lose what
    axes had: compare with rotation="none".

    The forest of Rodríguez, Kuncheva and Alonso has a rotation for each tree, which is grown on all samples and looks
    at all features: n_members=100, n_trees=1, max_features=None, bootstrap=False. It takes longer.

    Args:
        rotation: "pca", principal axes of random groups of features; "sparse", random projections of few entries;
            "haar", uniform rotations; "none".
        n_members: forests.
        n_trees: of a forest.
        group_size: features of a group of "pca".
        max_depth: of a tree; None for no limit.
        max_features: what a cut chooses among: "sqrt" of the features, drawn anew, or None for all.
        bootstrap: whether a tree sees as many samples, drawn with repetition, instead of all.
        random_state: of all draws.

    Attributes:
        classes_: (classes,).
        mean_, scale_: of the features, (features,).
        rotations_: (n_members, features, features).
        roots_: index of each tree's first node, (n_members, n_trees).
        feature_, threshold_, left_, right_: of all nodes; a leaf is its own child.
        shares_: of the classes in a node, (nodes, classes).
    """

    def __init__(
        self,
        rotation: Rotation = "pca",
        *,
        n_members: int = 5,
        n_trees: int = 10,
        group_size: int = 3,
        max_depth: int | None = None,
        max_features: Literal["sqrt"] | None = "sqrt",
        bootstrap: bool = True,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.rotation = rotation
        self.n_members = n_members
        self.n_trees = n_trees
        self.group_size = group_size
        self.max_depth = max_depth
        self.max_features = max_features
        self.bootstrap = bootstrap
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RotationForest:
        """Grows the forests on X (samples, features) and classes y (samples,); itself.

        Args:
            X: (samples, features).
            y: (samples,).
            sample_weight: (samples,), not negative: how often a sample counts, in means and in draws; where a tree sees
                all samples, in its cuts and leaves. Equal ones are none.
        """
        from sklearn.tree import DecisionTreeClassifier
        from sklearn.utils.multiclass import check_classification_targets

        table, target = self._table(X, fit=True, y=y)
        check_classification_targets(target)
        if self.rotation not in get_args(Rotation) or self.max_features not in ("sqrt", None):
            raise Refused(
                f"rotation={self.rotation!r}, max_features={self.max_features!r}: one of "
                f"{', '.join(get_args(Rotation))}, and 'sqrt' or None"
            )
        at_least_one(n_members=self.n_members, n_trees=self.n_trees, group_size=self.group_size)
        rng = generator_from(self.random_state)
        table, target, weights = self._weighted(table, target, sample_weight)
        weights = None if weights is None or np.ptp(weights) == 0 else weights
        self.classes_, codes = np.unique(target, return_inverse=True)
        self.mean_ = table.mean(axis=0) if weights is None else np.average(table, axis=0, weights=weights)
        spread = (table - self.mean_).max(axis=0) - (table - self.mean_).min(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        self.scale_ = spread * np.sqrt(np.average(np.square((table - self.mean_) / spread), axis=0, weights=weights))
        self.scale_ = np.where(self.scale_ > 0, self.scale_, 1.0)
        standard = (table - self.mean_) / self.scale_
        rotations, trees = [], []
        for _ in range(self.n_members):
            rotations.append(rotation_of(self.rotation, standard, self.group_size, rng, weights))
            seen = (standard @ rotations[-1]).astype(np.float32)
            for _ in range(self.n_trees):
                drawn = weights
                if self.bootstrap:
                    drawn = np.bincount(drawn_rows(len(seen), len(seen), rng, weights), minlength=len(seen)) * 1.0
                tree = DecisionTreeClassifier(
                    max_features=self.max_features, max_depth=self.max_depth, random_state=int(rng.integers(2**31))
                )
                trees.append(tree.fit(seen, codes, sample_weight=drawn, check_input=False).tree_)
        self.rotations_ = np.stack(rotations)
        starts = np.cumsum([0, *(tree.node_count for tree in trees)])
        self.roots_ = starts[:-1].reshape(self.n_members, self.n_trees)
        self.feature_ = np.concatenate([np.maximum(tree.feature, 0) for tree in trees])
        self.threshold_ = np.concatenate([tree.threshold for tree in trees])
        for name in ("left", "right"):
            children = [
                np.where(child < 0, np.arange(tree.node_count), child) + start
                for tree, start in zip(trees, starts, strict=False)
                for child in (getattr(tree, f"children_{name}"),)
            ]
            setattr(self, f"{name}_", np.concatenate(children))
        shares = np.concatenate([tree.value[:, 0] for tree in trees])
        self.shares_ = shares / shares.sum(axis=1, keepdims=True)
        return self

    @same_kind
    def predict_proba(self, X: Any) -> Any:
        """Shares of the classes (samples, classes), the mean over all trees."""
        return self._shares(X)

    def predict(self, X: Any) -> Any:
        """The likeliest class (samples,) of rows."""
        likeliest = self._shares(X).argmax(axis=1)
        found = self.classes_[likeliest]
        return back(found, X) if found.dtype.kind in "biuf" else found

    def _shares(self, X: Any) -> Dense:
        standard = (self._table(X) - self.mean_) / self.scale_
        total = np.zeros((len(standard), len(self.classes_)))
        for rotation, roots in zip(self.rotations_, self.roots_, strict=True):
            # Trees were grown on numbers of 32 bits, and a threshold lies between two of them.
            seen = (standard @ rotation).astype(np.float32)
            nodes = np.broadcast_to(roots, (len(seen), len(roots)))
            while True:
                below = np.take_along_axis(seen, self.feature_[nodes], axis=1) <= self.threshold_[nodes]
                children = np.where(below, self.left_[nodes], self.right_[nodes])
                if (children == nodes).all():
                    break
                nodes = children
            total += self.shares_[nodes].mean(axis=1)
        found: Dense = total / self.n_members
        return found
