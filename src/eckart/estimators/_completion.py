"""What estimators of a table with missing entries share: scores of rows, entries by their indices, rows filled in."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from scipy import sparse

from eckart import arrays
from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.linalg.sparse_plus_low_rank import entries_of
from eckart.scikit.base import Estimator, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin, check_is_fitted

HELD_OUT = 0.2
"""Of the entries of rows, for their score."""


class Completion(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """x_ij = mean_j + scores_i . components_j; a row of which nothing is observed has scores of zero.

    Attributes:
        embedding_: scores of the rows that were fitted, (samples, n_components).
        components_: (n_components, features).
        mean_: (features,).
    """

    embedding_: Dense
    components_: Dense
    mean_: Dense

    @abstractmethod
    def _scores(self, x: sparse.csr_array) -> Dense:
        """Scores (rows, n_components) of rows, from their entries."""

    def _entries(self, X: Any, *, fit: bool = False, new: bool | None = None) -> sparse.csr_array:
        """What is observed of X: what is stored where it is sparse, and what is not NaN where it is not.

        Args:
            X: (rows, features).
            fit: whether it is all that is learned from, of which something is observed then.
            new: whether the features are learned here, where X is a block of what is learned from; None where not.
        """
        checks = {"accept_sparse": ["csr", "csc", "coo"], "ensure_all_finite": "allow-nan"}
        table = self._table(X, fit=fit, **checks) if new is None else self._block(X, new, **checks)
        if fit:
            return arrays.entries(table, "X")
        if not sparse.issparse(table) and np.isnan(table).all():
            return sparse.csr_array(table.shape)
        return sparse.csr_array(table.shape) if sparse.issparse(table) and not table.nnz else arrays.entries(table, "X")

    @same_kind
    def transform(self, X: Any) -> Any:
        """Scores (samples, n_components) of rows, from what is observed of them; 0 where nothing is."""
        return self._scores(self._entries(X))

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Whole rows (samples, features), from their scores."""
        return np.asarray(X, np.float64) @ self.components_ + self.mean_

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the root mean squared error of a fifth of what is observed of X, told from the rest of its rows.

        Which fifth is drawn, always in the same way, so that estimators are compared by the same entries: of rows that
        were not fitted, as those that scikit-learn's searches hold out, it is an error at entries that were never seen.

        Args:
            X: (samples, features), of which something is observed.
            y: not looked at.

        Raises:
            Refused: nothing is observed.
        """
        x = self._entries(X)
        if not x.nnz:
            raise Refused(f"none of the {x.shape[0]} x {x.shape[1]} entries of X is observed, and a score needs some")
        row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
        order = np.random.default_rng(0).permutation(x.nnz)
        held, rest = np.split(order, [max(1, int(HELD_OUT * x.nnz))])
        known = sparse.csr_array((x.data[rest], (row[rest], x.indices[rest])), x.shape)
        told = entries_of(self._scores(known), self.components_.T, row[held], x.indices[held])
        unit = arrays.power_of_two(x.data)
        return -unit * float(np.sqrt(np.square((x.data[held] - told - self.mean_[x.indices[held]]) / unit).mean()))

    def predict_entries(self, rows: Any, columns: Any) -> Dense:
        """Entries of the table that was fitted, by their indices.

        Args:
            rows: (pairs,), indices; -1 for a row that was not in the table.
            columns: (pairs,), indices.

        Returns:
            (pairs,); the column's mean where nothing was observed of the row.

        Raises:
            Refused: an index is outside the table.
        """
        check_is_fitted(self)
        rows = _indices(rows, "rows", len(self.embedding_), least=-1)
        columns = _indices(columns, "columns", self.components_.shape[1], least=0)
        if rows.shape != columns.shape:
            raise Refused(f"{len(rows)} rows and {len(columns)} columns are no pairs: hand in one of each for an entry")
        products = entries_of(self.embedding_, self.components_.T, rows, columns)
        found: Dense = np.where(rows < 0, 0.0, products) + self.mean_[columns]
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def column_means(x: sparse.csr_array) -> tuple[Dense, float]:
    """Means of what is observed of each column, (columns,), the overall one where nothing is; and that."""
    overall = float(x.data.mean())
    counts = np.bincount(x.indices, minlength=x.shape[1])
    sums = np.bincount(x.indices, x.data - overall, minlength=x.shape[1])
    return overall + sums / np.maximum(counts, 1), overall


def _indices(given: Any, name: str, size: int, least: int) -> Dense:
    found = np.asarray(given)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise Refused(f"{name} is an array of shape {found.shape} of {found.dtype}, and one of indices is needed")
    if found.size and not least <= found.min() <= found.max() < size:
        raise Refused(f"{name} has indices from {found.min()} to {found.max()}, and {least}..{size - 1} are there")
    return found
