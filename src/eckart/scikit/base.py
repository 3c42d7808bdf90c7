"""What estimators share: the door for their data, one warning for what did not converge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from scipy import sparse

from eckart.arrays import Dense, back, generator_of
from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.scikit.door import BaseEstimator, ConvergenceWarning, check_is_fitted, validate_data

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
        return validate_data(self, _opened(X), _opened(y), reset=fit, **{"dtype": np.float64, **checks})

    def _finished(self, solution: Solution[Any]) -> None:
        """Takes over how an iteration ended, and warns where that was too soon."""
        self.n_iter_ = solution.iterations
        self.converged_ = solution.converged
        self.history_ = np.asarray(solution.history, np.float64)
        if not solution.converged:
            warnings.warn(f"{type(self).__name__}: {solution.message}", ConvergenceWarning, stacklevel=3)


def same_kind(method: F) -> F:
    """A method of X whose result comes back as X came: a tensor on its device, floats of its dtype.

    Of an array of Dask the rows are taken block by block, once the result is computed. Numbers that the dtype of X does
    not hold are Refused.
    """

    @wraps(method)
    def called(self: Any, X: Any, *arguments: Any, **named: Any) -> Any:
        if of_dask(X):
            check_is_fitted(self)
            one = called(self, np.zeros((1, *X.shape[1:])), *arguments, **named)
            whole = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
            chunks = (whole.chunks[0], *((size,) for size in one.shape[1:]))
            gone = list(range(one.ndim, X.ndim))
            return whole.map_blocks(
                lambda rows: called(self, rows, *arguments, **named), dtype=one.dtype, chunks=chunks, drop_axis=gone
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
    return generator_of(random_state)


def _opened(X: Any) -> Any:
    library = type(X).__module__.partition(".")[0]
    if library == "torch" and str(X.layout) != "torch.strided":
        stored = X.detach().cpu().to_sparse_coo().coalesce()
        return sparse.coo_array((stored.values().numpy(), stored.indices().numpy()), shape=tuple(X.shape)).tocsr()
    if library == "torch":
        return X.detach().cpu().double().numpy() if X.is_floating_point() else X.detach().cpu().numpy()
    if of_dask(X):
        raise Refused(f"X is {type(X).__name__} of Dask, whose parts are never together here: hand in X.compute()")
    return X


def of_dask(X: Any) -> bool:
    """Whether X is an array of Dask."""
    return type(X).__module__.partition(".")[0] == "dask"


def row_blocks(X: Any) -> Iterator[Dense]:
    """The rows of an array of Dask, one block after the other, computed when they are asked for."""
    whole = X.rechunk({1: -1})
    for at in range(whole.numblocks[0]):
        yield whole.blocks[at].compute()


def at_least_one(**counts: int) -> None:
    """Raises Refused for a number of steps, or of anything else, that is below 1 or no whole number."""
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
            raise Refused(f"{name}={count!r} is no whole number from 1 on")


def positive(**values: float) -> float:
    """The one value, as a number above zero; Refused where it is none."""
    for name, value in values.items():
        if isinstance(value, bool | str) or not 0 < value < np.inf:
            raise Refused(f"{name}={value!r}, and a positive one is needed")
    return float(value)
