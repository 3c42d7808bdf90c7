"""CUR: a table from some of its own columns and rows, so that features stay what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import Dense, power_of_two
from eckart.estimators.contract import estimator
from eckart.linalg.cur import cur
from eckart.scikit.base import Estimator, generator_from, same_kind
from eckart.scikit.door import OneToOneFeatureMixin, TransformerMixin
from eckart.scikit.planted import Planted


def _planted(rng: np.random.Generator) -> Planted:
    x = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 30))
    return Planted(
        {"X": x},
        lambda fitted: np.linalg.norm(fitted.inverse_transform(fitted.transform(x)) - x) / np.linalg.norm(x),
        1e-10,
        {"n_components": 3},
    )


@estimator(
    "cur",
    paper="Voronin and Martinsson 2017, arXiv 1412.8447; Dong and Martinsson 2023, arXiv 2104.05877",
    kind="transformer",
    gives="some columns and rows, and what joins them",
    takes="sparse",
    planted=_planted,
    expression="Chain(Selection, Dense, Selection)",
)
class CURDecomposition(OneToOneFeatureMixin, TransformerMixin, Estimator):
    """CUR: a table from some of its own columns and rows, so that features stay what they were.

    X ~ C U R with columns C and rows R of X: the pivots of QR with column pivoting on a sketch, and U = C^+ X R^+ the
    best between them (`eckart.linalg.cur`). `transform` picks the columns, under their names; `inverse_transform` says
    the others from these. Nothing is centred. The error of what is not of low rank is some times that of the SVD.

    Args:
        n_components: columns, and rows; of a smaller table all.
        random_state: of the sketch.

    Attributes:
        columns_: indices of the columns, ascending, (n_components,).
        rows_: indices of the rows, ascending, (n_components,).
        core_: U, (n_components, n_components).
        components_: U R, (n_components, features): what a row is from its entries in the columns.
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> CURDecomposition:
        """Picks columns and rows of X (samples, features), dense or sparse; itself."""
        x = self._table(X, fit=True, accept_sparse="csr")
        unit = power_of_two(x.data if sparse.issparse(x) else x)
        found = cur(x / unit, min(self.n_components, *x.shape), generator=generator_from(self.random_state))
        down, across = np.argsort(found.rows), np.argsort(found.columns)
        self.rows_, self.columns_ = found.rows[down], found.columns[across]
        core = found.core[across][:, down]
        picked = _dense(x[self.rows_]) / unit
        self.components_, self.core_ = core @ picked, core / unit
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """The chosen columns (samples, n_components) of X."""
        return _dense(self._table(X, accept_sparse="csr")[:, self.columns_])

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Rows (samples, features) from their entries in the chosen columns."""
        return np.asarray(X, np.float64) @ self.components_

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Names of the chosen columns."""
        return super().get_feature_names_out(input_features)[self.columns_]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _dense(x: Any) -> Dense:
    found: Dense = x.toarray() if sparse.issparse(x) else x
    return found
