"""Kernels on the rows of tables: what estimators of them share."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eckart.arrays import Dense, dense
from eckart.errors import Refused
from eckart.kernels._checks import blocks, symmetric
from eckart.kernels._gram import Gram, finite
from eckart.kernels._kernel import Kernel
from eckart.kernels._named import as_kernel
from eckart.kernels._points import Points
from eckart.linalg.pivoted_cholesky import Pivots, pivoted_cholesky
from eckart.linalg.rejection_cholesky import rejection_cholesky
from eckart.linalg.tall_ridge import tall_ridge
from eckart.scikit.base import Estimator, at_least_one, generator_from

Picked = Literal["rpcholesky", "greedy", "uniform"]
PRECOMPUTED = "precomputed"


@dataclass(frozen=True)
class Landmarks:
    """Rows whose span holds the functions of an estimator: phi(x) phi(z) ~ k(x, z), phi(x) = L^-1 k(S, x).

    Attributes:
        index: of the rows S among those that were fitted, (k,); empty where they were handed in.
        points: S (k, d); of a precomputed kernel (k, 0).
        root: L (k, k), lower triangular, L L^T = k(S, S).
    """

    index: Dense
    points: Dense
    root: Dense

    def features(self, kernel: Kernel | None, x: Tensor) -> Tensor:
        """phi (n, k) of rows x; of rows (n, n) of the kernel's matrix where it is precomputed."""
        made = torch.empty(len(x), len(self.root), dtype=torch.float64)
        for rows in blocks(len(x), len(self.root)):
            made[rows] = self.block(kernel, x[rows])
        return made

    @torch.no_grad()
    def block(self, kernel: Kernel | None, x: Tensor) -> Tensor:
        """phi (n, k) of a few rows."""
        across = x[:, self.index] if kernel is None else finite(kernel(x, torch.from_numpy(self.points)))
        if not len(self.root):
            return across.new_zeros(len(x), 0)
        found: Tensor = torch.linalg.solve_triangular(torch.from_numpy(self.root), across.T, upper=False)
        return found.T


def landmarks_of(
    gram: Gram, picked: Any, count: int, tolerance: float, rng: np.random.Generator
) -> tuple[Landmarks, Pivots | None]:
    """Landmarks by their name, or those that are handed in, and the factor of the whole matrix where there is one.

    Rows that add nothing but rounding to the others are left out.

    Args:
        gram: of the rows.
        picked: "rpcholesky", "greedy", "uniform", or points (k, d).
        count: how many at most.
        tolerance: of the trace that is left by the whole, where "rpcholesky" and "greedy" stop.
        rng: of the draws.

    Raises:
        Refused: another name, points of another width, a kernel that is not positive semi-definite.
    """
    empty = np.zeros(0, np.int64)
    if not isinstance(picked, str):
        points = np.ascontiguousarray(dense(picked, "landmarks", ndim=None))
        if gram.kernel is None or points.ndim != 2 or points.shape[1] != gram.x.shape[1]:
            raise Refused(f"landmarks of shape {points.shape} are no rows of {gram.x.shape[1]} features of points")
        own = Gram(gram.kernel, torch.from_numpy(points))
        taken = _eliminated(own)
        order = taken.index.numpy()
        return Landmarks(empty, points[order], _root(taken)), None
    at_least_one(n_components=count)
    count = min(count, len(gram))
    if picked == "uniform":
        drawn = torch.from_numpy(rng.permutation(len(gram))[:count])
        taken = _eliminated(Gram(None, gram.between(drawn, drawn)))
        index, pivots = drawn[taken.index], None
    elif picked == "greedy":
        columns, whole = gram.columns(), slice(0, len(gram))
        one = lambda i: columns(torch.tensor([i]), whole)[0]  # noqa: E731
        pivots = taken = pivoted_cholesky(gram.diagonal(), one, count, tolerance=tolerance)
        index = taken.index
    elif picked == "rpcholesky":
        pivots = taken = drawn_columns(gram, count, rng, tolerance)
        index = taken.index
    else:
        raise Refused(f"landmarks={picked!r} is no array of points and none of rpcholesky, greedy, uniform")
    points = np.zeros((len(index), 0)) if gram.kernel is None else gram.x[index].numpy()
    return Landmarks(index.numpy(), points, _root(taken)), pivots


def drawn_columns(gram: Gram, count: int, rng: np.random.Generator, tolerance: float = 0.0) -> Pivots:
    """Columns of the matrix that RPCholesky draws."""
    return rejection_cholesky(
        gram.diagonal(),
        gram.columns(),
        count,
        square=gram.square,
        tolerance=tolerance,
        generator=torch_generator(rng),
    )


def _eliminated(gram: Gram) -> Pivots:
    matrix = gram.between(slice(None), slice(None))
    return pivoted_cholesky(matrix.diagonal(), lambda i: matrix[:, i], len(matrix))


def _root(taken: Pivots) -> Dense:
    """L of k(S, S) = L L^T in the order in which S was taken."""
    root: Dense = taken.factor[taken.index].tril().contiguous().numpy()
    return root


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A generator of torch that goes on from one of NumPy."""
    return torch.Generator().manual_seed(int(rng.integers(2**63)))


@torch.no_grad()
def combined(kernel: Kernel | None, x: Tensor, fitted: Dense, index: Dense, coefficients: Dense) -> Dense:
    """sum_j k(x_i, s_j) c_j of rows x, by blocks.

    Args:
        kernel: None where x holds the kernel with all rows that were fitted, (n, all).
        x: (n, d).
        fitted: s (k, d).
        index: where they were among the rows fitted, (k,).
        coefficients: c (k,) or (k, t).
    """
    made = np.empty((len(x), *coefficients.shape[1:]))
    others, c = tensor(fitted), tensor(coefficients)
    for rows in blocks(len(x), len(c)):
        across = x[rows][:, index] if kernel is None else finite(kernel(x[rows], others))
        made[rows] = (across @ c).numpy()
    return made


def decoder(features: Tensor, rows: Tensor) -> Tensor:
    """B (k, d), features B ~ rows: ridge regression, its ridge of the least error when each row is left out."""
    regression = tall_ridge(lambda: [(features, rows)])
    if not len(regression.values):
        return regression.weights(1.0)
    alphas = float(regression.values[0]) ** 2 * 10.0 ** torch.arange(-14, 1, dtype=torch.float64)
    errors, _ = regression.left_out(lambda: [(features, rows)], alphas)
    return regression.weights(float(alphas[errors.sum(1).argmin()]))


class OfKernel(Estimator):
    """An estimator with a kernel: by name with scikit-learn's gamma, degree and coef0, a `Kernel`, or precomputed."""

    kernel: Any
    kernel_: Any
    gamma: float | None = None
    degree: int = 3
    coef0: float = 1.0

    def _fit_kernel(self, x: Dense) -> Kernel | None:
        """The kernel for rows, a copy; None for a precomputed one, whose matrix is checked."""
        self.kernel_ = None
        if not (isinstance(self.kernel, str) and self.kernel == PRECOMPUTED):
            made = as_kernel(self.kernel, x.shape[1], gamma=self.gamma, degree=self.degree, coef0=self.coef0)
            self.kernel_ = copy.deepcopy(made)
        else:
            symmetric(x)
        found: Kernel | None = self.kernel_
        return found

    def _table(self, X: Any, *, fit: bool = False, y: Any = "no_validation", **checks: Any) -> Any:
        if isinstance(X, Points):
            raise Refused(f"X is {type(X).__name__}, whose structure is of no use here: hand in X.array()")
        return super()._table(X, fit=fit, y=y, **checks)

    def _rng(self) -> np.random.Generator:
        return generator_from(getattr(self, "random_state", None))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == PRECOMPUTED
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def tensor(x: Dense) -> Tensor:
    """A tensor of an array, which is copied where it may not be written to."""
    return torch.from_numpy(x if x.flags.writeable and x.flags.c_contiguous else np.array(x, order="C"))
