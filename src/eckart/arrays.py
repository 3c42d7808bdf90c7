"""The door for data: arrays of NumPy, SciPy and torch come in, and results go back as what came."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from eckart.errors import Refused

Array = Any
"""A NumPy array, a SciPy sparse matrix or array, or a torch tensor."""
Dense = np.ndarray[Any, np.dtype[Any]]
Seed = int | np.random.Generator | None
"""What a generator is made of; None for a fresh one."""


def dense(x: Array, name: str = "the data", *, ndim: int | None = 2, complex_too: bool = False) -> Dense:
    """A NumPy array in float64 of something dense; what is one already is not copied.

    Args:
        x: it.
        name: what it is called where it is refused.
        ndim: how many dimensions it has; None for any number.
        complex_too: whether complex numbers are taken, in complex128.

    Raises:
        Refused: it is sparse, of another number of dimensions, complex where that is not taken, no numbers, or NaN or
            Inf.
    """
    if sparse.issparse(x):
        raise Refused(f"{name} is sparse ({type(x).__name__}), and dense is needed: hand in x.toarray()")
    return _checked(_numpy(x, name, complex_too), name, ndim)


def observed(x: Array, name: str = "the data", *, ndim: int | None = 2) -> tuple[Dense, Dense]:
    """A matrix in float64 with 0 where it was NaN, a copy, and where it was not: what was observed.

    Args:
        x: it.
        name: what it is called where it is refused.
        ndim: how many dimensions it has instead of two; None for any number.

    Raises:
        Refused: it is sparse, of another number of dimensions, complex, no numbers, has infinite entries, or
            nothing but NaN.
    """
    if sparse.issparse(x):
        raise Refused(f"{name} is sparse ({type(x).__name__}), and dense is needed, NaN where nothing was observed")
    held = np.array(_numpy(x, name))
    seen = ~np.isnan(held)
    held[~seen] = 0.0
    _checked(held, name, ndim)
    if held.size and not seen.any():
        raise Refused(f"none of the {' x '.join(map(str, held.shape))} entries of {name} is observed: all are NaN")
    return held, seen


def entries(x: Array, name: str = "the data") -> sparse.csr_array:
    """What is observed of a matrix, in compressed rows in float64: of a sparse one what it stores, zeros too.

    Of a dense one what is not NaN. NaN is not observed in a sparse one either.

    Raises:
        Refused: it is no matrix, complex, no numbers, has infinite entries, or nothing is observed.
    """
    if not sparse.issparse(x):
        held, seen = observed(x, name)
        row, column = np.nonzero(seen)
        return sparse.csr_array((held[seen], (row, column)), shape=held.shape)
    if x.dtype.kind not in "biuf" or x.ndim != 2:
        raise Refused(f"{name} is {type(x).__name__} of {x.dtype}, and a matrix of real numbers is needed")
    made = sparse.csr_array(x, dtype=np.float64, copy=True)
    made.sum_duplicates()
    if np.isnan(made.data).any():
        stored = made.tocoo()
        kept = ~np.isnan(stored.data)
        made = sparse.csr_array((stored.data[kept], (stored.row[kept], stored.col[kept])), shape=made.shape)
    _checked(made.data, name, 1)
    if not made.nnz and made.shape[0] * made.shape[1]:
        raise Refused(f"none of the {made.shape[0]} x {made.shape[1]} entries of {name} is observed: none is stored")
    return made


def rows(x: Array, name: str = "the data") -> Dense | sparse.csr_array:
    """A matrix in float64, dense or in compressed rows as it came; SciPy's matrices become arrays.

    Raises:
        Refused: it is no matrix, complex, no numbers, or has NaN or Inf entries.
    """
    if sparse.issparse(x):
        made = sparse.csr_array(x, dtype=np.float64) if x.dtype.kind in "biuf" else None
        if made is None or made.ndim != 2:
            raise Refused(f"{name} is {type(x).__name__} of {x.dtype}, and a matrix of real numbers is needed")
        _checked(made.data, name, 1)
        return made
    return _checked(_numpy(x, name), name, 2)


def back(result: Dense, like: Array) -> Array:
    """A result as what came: a tensor on its device, and floats of its precision where that is of floats."""
    if type(like).__module__.partition(".")[0] == "torch":
        import torch

        made = torch.from_numpy(np.ascontiguousarray(result)).to(like.device)
        if made.is_complex() and (like.is_complex() or like.is_floating_point()):
            return made.to(like.dtype.to_complex())
        if made.is_floating_point() and (like.is_complex() or like.is_floating_point()):
            return made.to(like.dtype.to_real())
        return made
    kind = getattr(like, "dtype", np.dtype(float))
    if not isinstance(kind, np.dtype) or kind.kind not in "fc" or result.dtype.kind not in "fc":
        return result
    real = np.empty(0, kind).real.dtype
    return result.astype(np.result_type(real, np.complex64) if result.dtype.kind == "c" else real, copy=False)


def of_dask(X: Any) -> bool:
    """Whether X is an array of Dask.

    Raises:
        Refused: it is something else of Dask, as a table.
    """
    found = type(X).__module__.partition(".")[0] in ("dask", "dask_expr")
    if found and not hasattr(type(X), "rechunk"):
        raise Refused(
            f"X is {type(X).__name__} of Dask, of which arrays are read: hand in X.to_dask_array(lengths=True), or "
            "X.compute()"
        )
    return found


def row_blocks(X: Any) -> Iterator[Dense]:
    """The rows of an array of Dask, one block after the other, computed when they are asked for."""
    table = whole_rows(X)
    for at in range(table.numblocks[0]):
        yield table.blocks[at].compute()


def whole_rows(X: Any) -> Any:
    """An array of Dask with all columns in one block."""
    return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))


def power_of_two(x: Any) -> float:
    """The power of two at or below the largest entry's size, to divide by without rounding; 1 where all are 0.

    Args:
        x: an array, or a sparse matrix of SciPy.
    """
    largest = float(np.abs(x.data if hasattr(x, "tocsr") else x).max(initial=0.0))
    return float(np.ldexp(1.0, int(np.frexp(largest)[1]) - 1)) if largest > 0 else 1.0


def number(value: Any) -> float:
    """An option as a float, to be compared; NaN, which no comparison holds for, where it is no real number.

    None, text, lists, arrays and bools are none, and neither is a whole number beyond what floats hold.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def whole(value: Any) -> bool:
    """Whether an option is a whole number: an int of Python or NumPy, no bool, no float."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def generator_of(seed: Seed, name: str = "generator") -> np.random.Generator:
    """A generator of its own; one that comes is used, and moves on.

    Args:
        seed: it, or what it is made of.
        name: what it is called where it is refused.

    Raises:
        Refused: what comes is none of these, as NumPy's global `RandomState`, or a number below zero.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    if seed is None or (whole(seed) and seed >= 0):
        return np.random.default_rng(seed)
    raise Refused(
        f"{name}={seed!r:.80} is a {type(seed).__name__}: hand in a whole number from 0 on or numpy.random.Generator"
    )


def _numpy(x: Array, name: str, complex_too: bool = False) -> Dense:
    if type(x).__module__.partition(".")[0] == "dask":
        raise Refused(f"{name} is an array of Dask, whose parts are never together: hand in x.compute()")
    if type(x).__module__.partition(".")[0] == "torch":
        import torch

        if x.layout is not torch.strided:
            raise Refused(f"{name} is a tensor of layout {x.layout}: hand in a matrix of SciPy, or x.to_dense()")
        x = x.detach().cpu()
        x = x.double().numpy() if x.is_floating_point() else x.resolve_conj().numpy()
    found = np.asarray(x)
    if complex_too and found.dtype.kind == "c":
        return found.astype(np.complex128, copy=False)
    if found.dtype.kind not in "biuf":
        raise Refused(f"{name} is of {found.dtype}, and real numbers are needed")
    return found.astype(np.float64, copy=False)


def _checked(x: Dense, name: str, ndim: int | None) -> Dense:
    if ndim is not None and x.ndim != ndim:
        raise Refused(f"{name} is of shape {x.shape}, and {ndim} dimensions are needed")
    if not np.isfinite(x).all():
        raise Refused(f"{name} has {int((~np.isfinite(x)).sum())} NaN or Inf entries")
    return x
