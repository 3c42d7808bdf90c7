"""Random maps to fewer dimensions that keep lengths: E |S x|^2 = |x|^2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import Dense, Seed, generator_of, of_dask, row_blocks
from eckart.errors import Refused
from eckart.linalg.hadamard import walsh_hadamard


class Sketch(ABC):
    """S (rows, size): a linear map that is drawn once and then applied to whatever comes.

    Args:
        rows: of S, the dimension to which it goes.
        size: the columns of S, the dimension that is reduced.
        generator: of S.
    """

    def __init__(self, rows: int, size: int, generator: Seed = None) -> None:
        if rows < 1 or size < 1:
            raise Refused(f"a sketch of {rows} rows for {size} has no entries")
        self.shape = (int(rows), int(size))
        self._generator = generator_of(generator)

    def apply(self, a: Any) -> Dense:
        """S A for A (size, ...), dense or sparse, or an array of Dask, which is read block by block; float64.

        Raises:
            Refused: A has another number of rows, or is of Dask in several blocks of rows and S needs whole columns.
        """
        if a.shape[0] != self.shape[1]:
            raise Refused(f"a sketch of shape {self.shape} is not for {a.shape[0]} rows")
        if not of_dask(a):
            return self.apply_chunk(a, 0)
        found, start = np.zeros((self.shape[0], *a.shape[1:])), 0
        for block in row_blocks(a):
            found += self.apply_chunk(block, start)
            start += len(block)
        return found

    @abstractmethod
    def apply_chunk(self, a: Any, start: int) -> Dense:
        """What the rows `start`, ... of A, which are the rows of `a`, add to S A; over all chunks it sums up to S A.

        Raises:
            Refused: the chunk reaches beyond the size, or S needs whole columns.
        """


class _Stored(Sketch):
    """One that is held as a matrix."""

    matrix: Any

    def apply_chunk(self, a: Any, start: int) -> Dense:
        end = start + a.shape[0]
        if start < 0 or end > self.shape[1]:
            raise Refused(f"rows {start} to {end} are not among the {self.shape[1]} that the sketch is for")
        part = self.matrix[:, start:end]
        if not sparse.issparse(a):
            a = np.asarray(a, np.float64)
            flat = a.reshape(len(a), -1)
            return np.asarray(part @ flat, np.float64).reshape(self.shape[0], *a.shape[1:])
        found = part @ a
        return np.asarray(found.toarray() if sparse.issparse(found) else found, np.float64)


class SparseSign(_Stored):
    """`nonzeros` entries +-1/sqrt(nonzeros) in each column of S, one in each of as many bands of rows.

    Sparse embeddings with bands (Nelson and Nguyen 2013); 8 are enough in practice, one is `CountSketch`.

    Args:
        rows: of S.
        size: columns of S.
        generator: of S.
        nonzeros: of each column; at most `rows`.
    """

    def __init__(self, rows: int, size: int, generator: Seed = None, *, nonzeros: int = 8) -> None:
        super().__init__(rows, size, generator)
        z = min(nonzeros, rows)
        if z < 1:
            raise Refused(f"nonzeros={nonzeros} entries in a column are none")
        bounds = np.linspace(0, rows, z + 1).astype(np.int64)
        place = bounds[:-1] + (self._generator.random((size, z)) * np.diff(bounds)).astype(np.int64)
        signs = self._generator.choice([-1.0, 1.0], (size, z)) / z**0.5
        pointers = np.arange(0, size * z + 1, z)
        self.matrix = sparse.csc_array((signs.ravel(), place.ravel(), pointers), shape=self.shape)


class CountSketch(SparseSign):
    """One entry +-1 in each column of S (Charikar, Chen and Farach-Colton 2002): a row of A goes to one row, signed."""

    def __init__(self, rows: int, size: int, generator: Seed = None) -> None:
        super().__init__(rows, size, generator, nonzeros=1)


class Gaussian(_Stored):
    """Independent normal entries of variance 1/rows; all rows x size of them are held."""

    def __init__(self, rows: int, size: int, generator: Seed = None) -> None:
        super().__init__(rows, size, generator)
        self.matrix = self._generator.standard_normal(self.shape) / rows**0.5


class SRHT(Sketch):
    """Random signs, the Walsh-Hadamard transform, and some of its rows without replacement, scaled (Tropp 2011).

    A column is padded with zeros to a power of two, to which S has at most as many rows; with all of them S is
    orthogonal. It needs whole columns.
    """

    def __init__(self, rows: int, size: int, generator: Seed = None) -> None:
        super().__init__(rows, size, generator)
        self._padded = 1 << (size - 1).bit_length()
        if rows > self._padded:
            raise Refused(f"an SRHT of {size} numbers has {self._padded} rows at most, and rows={rows}")
        self._signs = self._generator.choice([-1.0, 1.0], size)
        self._kept = self._generator.choice(self._padded, rows, replace=False)

    def apply_chunk(self, a: Any, start: int) -> Dense:
        if start or a.shape[0] != self.shape[1]:
            raise Refused("an SRHT mixes whole columns and takes no chunks of them: use SparseSign")
        dense = a.toarray() if sparse.issparse(a) else np.asarray(a, np.float64)
        padded = np.zeros((self._padded, *dense.shape[1:]))
        padded[: len(dense)] = self._signs.reshape(-1, *[1] * (dense.ndim - 1)) * dense
        found: Dense = walsh_hadamard(padded)[self._kept] * (self._padded / self.shape[0]) ** 0.5
        return found


SKETCHES: dict[str, type[Sketch]] = {
    "sparse-sign": SparseSign,
    "count": CountSketch,
    "srht": SRHT,
    "gaussian": Gaussian,
}
"""By the name that options give them."""


def sketch_of(kind: str, rows: int, size: int, generator: Seed = None) -> Sketch:
    """A sketch by its name.

    Raises:
        Refused: there is none of that name.
    """
    if kind not in SKETCHES:
        raise Refused(f"unknown sketch {kind!r}; there are {', '.join(SKETCHES)}")
    return SKETCHES[kind](rows, size, generator)
