"""What estimators share: the door for their data, one warning for what did not converge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from scipy import sparse

from eckart.arrays import Dense, back, generator_of, number, of_dask, row_blocks, whole, whole_rows
from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.scikit.door import BaseEstimator, ConvergenceWarning, check_is_fitted, check_sample_weight, validate_data

F = TypeVar("F", bound=Callable[..., Any])


class Estimator(BaseEstimator):
    """An estimator of scikit-learn that takes torch tensors too, and arrays of Dask or refuses these by name."""

    def _table(self, X: Any, *, fit: bool = False, y: Any = "no_validation", **checks: Any) -> Any:
        """X, or X and y, as scikit-learn checks them: in float64, of the features that were fitted.

        Args:
            X: (samples, features).
            fit: whether the features are learned here; else the estimator must be fitted.
            y: the targets where there are some.
            checks: of `sklearn.utils.check_array`.
        """
        if not fit:
            check_is_fitted(self)
        name = type(self).__name__
        return validate_data(self, opened(X, name), opened(y, name), reset=fit, **{"dtype": np.float64, **checks})

    def _weighted(self, table: Any, target: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Rows and targets that count, and their weights, which are positive; None where none are given.

        Raises:
            ValueError: weights are negative, all zero, no numbers, or not one a row, in scikit-learn's words.
        """
        if sample_weight is None:
            return table, target, None
        weights = check_sample_weight(
            opened(sample_weight, type(self).__name__), table, dtype=np.float64, ensure_non_negative=True
        )
        counts = weights > 0
        return table[counts], target[counts], weights[counts]

    def _block(self, X: Any, first: bool, **checks: Any) -> Any:
        """`_table` of one block of many that are learned from; the first one says what the features are."""
        return validate_data(self, opened(X, type(self).__name__), reset=first, **{"dtype": np.float64, **checks})

    def _finished(self, solution: Solution[Any]) -> None:
        """Takes over how an iteration ended, and warns where that was too soon."""
        self.n_iter_ = solution.iterations
        self.converged_ = solution.converged
        self.history_ = np.asarray(solution.history, np.float64)
        if not solution.converged:
            warnings.warn(f"{type(self).__name__}: {solution.message}", ConvergenceWarning, stacklevel=3)


def same_kind(method: F) -> F:
    """A method of X whose result comes back as X came: a tensor on its device, floats of its dtype.

    Of an array of Dask the rows are taken block by block, once the result is computed; what comes out of one is asked
    of its first row, which is computed at once. Numbers that the dtype of X does not hold are Refused.
    """

    @wraps(method)
    def called(self: Any, X: Any, *arguments: Any, **named: Any) -> Any:
        if of_dask(X):
            check_is_fitted(self)
            one = called(self, _first_row(X), *arguments, **named)
            table = whole_rows(X)

            def said(rows: Any) -> Any:
                return called(self, rows, *arguments, **named) if len(rows) else one[:0]

            return table.map_blocks(
                said,
                meta=one[:0],
                dtype=one.dtype,
                chunks=(table.chunks[0], *((size,) for size in one.shape[1:])),
                drop_axis=list(range(one.ndim, X.ndim)),
                new_axis=list(range(X.ndim, one.ndim)) or None,
            )
        found = back(method(self, X, *arguments, **named), X)
        held = found.data if sparse.issparse(found) else found
        if not (held.isfinite() if hasattr(held, "isfinite") else np.isfinite(held)).all():
            raise Refused(
                f"{type(self).__name__}.{method.__name__}: {found.dtype} does not hold numbers as large as come out: "
                "divide X by a power of two"
            )
        return found

    return cast(F, called)


def generator_from(random_state: int | np.random.Generator | np.random.RandomState | None) -> np.random.Generator:
    """A generator of what scikit-learn calls a random state; its own kind gives the seed of one."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    return generator_of(random_state, "random_state")


def opened(X: Any, name: str = "it") -> Any:
    """X as scikit-learn reads it: a tensor as an array, floats in float64; of Dask Refused, for what bears the name."""
    library = type(X).__module__.partition(".")[0]
    if library == "torch" and str(X.layout) != "torch.strided":
        stored = X.detach().cpu().to_sparse_coo().coalesce()
        return sparse.coo_array((stored.values().numpy(), stored.indices().numpy()), shape=tuple(X.shape)).tocsr()
    if library == "torch":
        return X.detach().cpu().double().numpy() if X.is_floating_point() else X.detach().cpu().numpy()
    if of_dask(X):
        raise Refused(
            f"{name} learns from all of X, and X is {type(X).__name__} of Dask, whose parts are never together here: "
            "hand in X.compute()"
        )
    return X


def paired_blocks(X: Any, y: Any) -> Iterator[tuple[Dense, Any]]:
    """`row_blocks` that have rows, and what stands beside each in y (rows,), an array of Dask or of another kind.

    Raises:
        Refused: y has not as many rows.
    """
    at = 0
    for rows in row_blocks(X):
        beside = y[at : at + len(rows)]
        at += len(rows)
        if len(rows):
            yield rows, beside.compute() if of_dask(beside) else beside
    if len(y) != at:
        raise Refused(f"X has {at} rows and y has {len(y)}: one target for each row is needed")


def _first_row(X: Any) -> Any:
    """The first row of an array of Dask, in its block's own kind; none where there is none."""
    block: Any = None
    for block in row_blocks(X):
        if len(block):
            break
    return block[:1]


def at_least_one(**counts: int) -> None:
    """Raises Refused for a number of steps, or of anything else, that is below 1 or no whole number."""
    for name, count in counts.items():
        if not whole(count) or count < 1:
            raise Refused(f"{name}={count!r:.80} is no whole number from 1 on")


def positive(**values: float) -> float:
    """The one value, as a number above zero; Refused where it is none: None, text, a list, an array, a bool, NaN."""
    for name, value in values.items():
        if not 0 < number(value) < np.inf:
            raise Refused(f"{name}={value!r:.80}, and a positive number is needed")
    return float(value)
