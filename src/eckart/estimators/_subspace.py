"""What estimators share that find a subspace under outliers: robust scores of new rows, and rows from scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.linalg.least_absolute import least_absolute_scores
from eckart.linalg.solution import Solution
from eckart.linalg.thresholded_svd import ThinSVD
from eckart.scikit.base import Estimator, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin


class RobustSubspace(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """A transformer with orthonormal `components_` (rank, features), whose data may be NaN."""

    components_: Dense

    def _split(self, solution: Solution[tuple[ThinSVD, Dense]]) -> None:
        """Takes over a matrix of low rank and a sparse one."""
        low, self.sparse_ = solution.value
        self._spanned(low)
        self.low_rank_ = low.dense()
        self._finished(solution)

    def _spanned(self, low: ThinSVD) -> None:
        """Takes over the subspace of the rows of a matrix; Refused where float64 does not hold its singular values."""
        if not np.isfinite(low.values).all():
            raise Refused("X has entries so large that its singular values are infinite: divide it by a power of two")
        self.components_, self.singular_values_ = np.ascontiguousarray(low.right.T), low.values
        self._n_features_out = len(low.values)

    @same_kind
    def transform(self, X: Any) -> Any:
        """Scores (samples, rank) of rows on `components_`, by least absolute deviations; 0 where a row is all NaN."""
        table = self._table(X, ensure_all_finite="allow-nan")
        seen = ~np.isnan(table)
        return least_absolute_scores(np.where(seen, table, 0.0), seen, self.components_.T)

    @same_kind
    def inverse_transform(self, X: Any) -> Any:
        """Rows (samples, features) of the subspace, from their scores."""
        return np.asarray(X, np.float64) @ self.components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
