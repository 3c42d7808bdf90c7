"""What the functions on structures share: products in float64 with vectors as columns, checks, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.func import functional_call

from eckart.errors import Refused
from eckart.structures import StructuredMatrix, apply_transposed

Columns = Callable[[Tensor], Tensor]
"""(n, k) -> (m, k), linear."""
SYMMETRIC = 8
"""Roundings by which a matrix that is meant to be symmetric may differ from its transpose."""


def product(matrix: StructuredMatrix, x: Tensor) -> Tensor:
    """W x for x (in, k) in float64, whatever W is stored in; gradients reach the leaves of W."""
    wide = {name: p.double() for name, p in matrix.named_parameters() if p.is_floating_point()}
    y: Tensor = functional_call(matrix, wide, (x.T,))
    return y.T


class _Adjoint(torch.nn.Module):
    """A structure that is called as its transpose."""

    def __init__(self, matrix: StructuredMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return apply_transposed(self.matrix, x)


def adjoint_product(matrix: StructuredMatrix, x: Tensor) -> Tensor:
    """W^T x for x (out, k) in float64."""
    named = {f"matrix.{name}": p.double() for name, p in matrix.named_parameters() if p.is_floating_point()}
    y: Tensor = functional_call(_Adjoint(matrix), named, (x.T,))
    return y.T


def in_float64(matrix: StructuredMatrix) -> Tensor:
    """W (out, in) in float64; gradients reach its leaves."""
    return product(matrix, torch.eye(matrix.shape[1], dtype=torch.float64, device=matrix.device))


def finite_shift(shift: float) -> float:
    """`shift`; Refused where it is NaN or infinite."""
    if not math.isfinite(shift):
        raise Refused(f"shift={shift} is not finite")
    return shift


def square(matrix: StructuredMatrix, doing: str) -> int:
    """n of a matrix (n, n); Refused where it is none, holds NaN or Inf, or depends on its input."""
    if not isinstance(matrix, StructuredMatrix):
        raise TypeError(f"{doing} takes a structure, got {type(matrix).__name__}; wrap a tensor in structures.Dense")
    matrix.check_linear()
    out, columns = matrix.shape
    if out != columns:
        raise Refused(f"{doing} is of square matrices, got {type(matrix).__name__} of shape {matrix.shape}")
    finite(matrix)
    return out


def finite(matrix: StructuredMatrix) -> None:
    """Refused where a leaf holds NaN or Inf."""
    for name, leaf in matrix.named_parameters():
        if leaf.is_floating_point() and not torch.isfinite(leaf).all():
            raise Refused(f"{type(matrix).__name__} holds NaN or Inf entries in {name}")


def no_rule(matrix: StructuredMatrix, doing: str, why: str = "") -> Refused:
    """What is raised where a structure has no rule."""
    name, reason = type(matrix).__name__, f" ({why})" if why else ""
    parts = ", ".join(type(part).__name__ for part in matrix.operands())
    return Refused(
        f"{doing} has no rule for {name}{f' of {parts}' if parts else ''}{reason}: take it of Dense(A.to_dense()), A "
        "the whole matrix that this is or is a part of, or iterate with linalg.krylov.pcg, minres or lsqr"
    )


def once(doing: str) -> None:
    """Raises Refused in a backward pass that is to be differentiated itself, where a rule has no second derivative."""
    if torch.is_grad_enabled():
        raise Refused(f"{doing} has gradients, and no gradients of these here: leave create_graph=True out")


def asymmetric(matrix: StructuredMatrix, doing: str) -> Refused:
    """What is raised where a rule goes by eigenvectors, and the structure is not symmetric."""
    if doing not in ("eigh", "sample"):
        return no_rule(matrix, doing, "it is not symmetric")
    return Refused(
        f"{doing} is of symmetric matrices, and {type(matrix).__name__} of shape {matrix.shape} is not symmetric: take "
        "it of the mean of A and linalg.transpose(A), or, for eigenvalues, torch.linalg.eig of A.to_dense()"
    )


def is_symmetric(weight: Tensor) -> bool:
    """Whether W (..., n, n) is its transpose, but for a few roundings of float32, or of float64 where it is in that."""
    if weight.shape[-1] != weight.shape[-2]:
        return False
    wide = weight.detach().double()
    eps = min(
        torch.finfo(weight.dtype).eps, torch.finfo(torch.float32).eps
    )  # 16 bits of a symmetric matrix are symmetric
    slack = SYMMETRIC * eps * float(wide.abs().max())
    return bool((wide - wide.mT).abs().max() <= slack)


def columns_of(b: Any, n: int, device: torch.device, name: str = "b") -> Tensor:
    """b (n,) or (n, k), a tensor or an array, as (n, k) in float64.

    Raises:
        Refused: another shape, complex, no numbers, or NaN or Inf entries.
    """
    if not isinstance(b, Tensor):
        b = np.asarray(b)
        if b.dtype.kind not in "biuf":
            raise Refused(f"{name} is of {b.dtype}, and real numbers are needed")
        b = torch.from_numpy(np.ascontiguousarray(b, np.float64))
    if b.ndim not in (1, 2) or b.shape[0] != n or b.is_complex():
        raise Refused(f"{name} of shape {tuple(b.shape)} and {b.dtype} is no vector of {n} or columns of such")
    found: Tensor = (b[:, None] if b.ndim == 1 else b).to(device).double()
    if not torch.isfinite(found).all():
        raise Refused(f"{name} has NaN or Inf entries")
    return found


def as_came(x: Tensor, b: Any) -> Any:
    """Columns (n, k) in the shape, kind and dtype of b."""
    x = x[:, 0] if np.ndim(b) == 1 else x
    if isinstance(b, Tensor):
        return x.to(b.device, b.dtype if b.is_floating_point() else x.dtype)
    kind = np.asarray(b).dtype
    array = x.detach().cpu().numpy()
    return array.astype(kind) if kind.kind == "f" else array


def operator(a: Any, b: Any) -> tuple[Columns, Columns | None]:
    """x -> A x and x -> A^T x in float64, of a structure, tensor, array, sparse matrix, LinearOperator or function.

    A function is called with (n, k) columns of the kind that b is of; its transpose is not known.
    """
    if isinstance(a, StructuredMatrix):
        a.check_linear()
        return (lambda x: product(a, x)), (lambda x: adjoint_product(a, x))
    if isinstance(a, Tensor):
        wide = a.double()
        return (lambda x: wide @ x), (lambda x: wide.mT @ x)
    if sparse.issparse(a) or isinstance(a, np.ndarray):
        rows = a.astype(np.float64)
        return (lambda x: _array(rows @ x.numpy())), (lambda x: _array(rows.T @ x.numpy()))
    if hasattr(a, "matmat") and hasattr(a, "rmatmat"):
        return (lambda x: _array(a.matmat(x.numpy()))), (lambda x: _array(a.rmatmat(x.numpy())))
    if not callable(a):
        raise TypeError(f"a {type(a).__name__} is no matrix and no function")
    if isinstance(b, Tensor):
        return (lambda x: a(x)), None
    return (lambda x: _array(a(x.numpy()))), None


def _array(x: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, np.float64))
