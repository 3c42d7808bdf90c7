"""Linear measurements y_i = <A_i, M> of a matrix, by products with thin factors instead of with the A_i."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from scipy import sparse

from eckart.arrays import Array, Dense, dense
from eckart.errors import Refused


@runtime_checkable
class Measurements(Protocol):
    """The map A(M)_i = <A_i, M>, M of shape (n1, n2), and its adjoint A*(e) = sum_i e_i A_i."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, n1, n2)."""
        ...

    def of(self, f: Dense, g: Dense) -> Dense:
        """A(f g^T) (m,), of f (n1, k) and g (n2, k)."""
        ...

    def adjoint(self, e: Dense) -> Any:
        """A*(e): an array, or what has a `shape`, products `@` and a `.T`."""
        ...


class _Product(NamedTuple):
    """left @ right.T, kept as factors."""

    left: Dense
    right: Dense

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.left), len(self.right)

    @property
    def T(self) -> _Product:
        return _Product(self.right, self.left)

    def __matmul__(self, x: Dense) -> Dense:
        found: Dense = self.left @ (self.right.T @ x)
        return found


class DenseMeasurements:
    """The A_i as they are: (m, n1, n2). A product costs m n1 n2."""

    def __init__(self, matrices: Array) -> None:
        self.matrices = dense(matrices, "the measurements", ndim=3)

    @property
    def shape(self) -> tuple[int, int, int]:
        m, n1, n2 = self.matrices.shape
        return m, n1, n2

    def of(self, f: Dense, g: Dense) -> Dense:
        found: Dense = self.matrices.reshape(len(self.matrices), -1) @ (f @ g.T).ravel()
        return found

    def adjoint(self, e: Dense) -> Dense:
        _, n1, n2 = self.shape
        return (e @ self.matrices.reshape(len(e), -1)).reshape(n1, n2)


class RankOneMeasurements:
    """A_i = a_i b_i^T, from a (m, n1) and b (m, n2). A product with k columns costs m (n1 + n2) k."""

    def __init__(self, a: Array, b: Array) -> None:
        self.a, self.b = dense(a, "a"), dense(b, "b")
        if len(self.a) != len(self.b):
            raise Refused(f"a of {self.a.shape} and b of {self.b.shape} must have a row for each measurement")

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.a), self.a.shape[1], self.b.shape[1]

    def of(self, f: Dense, g: Dense) -> Dense:
        found: Dense = np.einsum("mk,mk->m", self.a @ f, self.b @ g)
        return found

    def adjoint(self, e: Dense) -> _Product:
        return _Product(self.a.T * e, self.b.T)


class EntryMeasurements:
    """A_i picks the entry (rows_i, columns_i) of a matrix of `shape`: completion. A product costs m k."""

    def __init__(self, rows: Array, columns: Array, shape: tuple[int, int]) -> None:
        self.rows, self.columns = np.asarray(rows), np.asarray(columns)
        if self.rows.shape != self.columns.shape or self.rows.ndim != 1 or self.rows.dtype.kind not in "iu":
            raise Refused(
                f"rows of {self.rows.shape} and columns of {self.columns.shape} must be vectors of whole numbers"
            )
        for index, size, name in ((self.rows, shape[0], "rows"), (self.columns, shape[1], "columns")):
            if len(index) and not 0 <= index.min() <= index.max() < size:
                raise Refused(f"{name} go from {index.min()} to {index.max()}, beyond a matrix of {shape}")
        self._matrix = shape

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.rows), *self._matrix

    def of(self, f: Dense, g: Dense) -> Dense:
        found: Dense = np.einsum("mk,mk->m", f[self.rows], g[self.columns])
        return found

    def adjoint(self, e: Dense) -> sparse.csr_array:
        return sparse.csr_array((e, (self.rows, self.columns)), shape=self._matrix)


class ScaledMeasurements:
    """Measurements divided by a number: A_i / unit."""

    def __init__(self, measurements: Measurements, unit: float) -> None:
        self.measurements, self.unit = measurements, unit

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.measurements.shape

    def of(self, f: Dense, g: Dense) -> Dense:
        return self.measurements.of(f, g) / self.unit

    def adjoint(self, e: Dense) -> Any:
        return self.measurements.adjoint(e / self.unit)
