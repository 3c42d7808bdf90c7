"""Matrices that act on both sides of a table, where neither side is symmetric: by Schur's triangular forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.linalg import LinAlgError, schur, solve_triangular
from torch import Tensor

from eckart.arrays import Dense
from eckart.linalg._factors import singular
from eckart.linalg._operators import in_float64, is_symmetric, once
from eckart.structures import Interleaved, Kronecker, Repeated, StructuredMatrix


@dataclass(frozen=True)
class TwoSided:
    """M X = A X + X B^T + shift X (Sylvester's equation), or A X B^T + shift X where it is a product, of X (a, b).

    With A = U S U^H and B^T = V T V^H, S and T triangular, a column of U^H X V follows from those before it by one
    triangular system (Bartels and Stewart 1972). Eigenvectors, which a side may lack, are not asked for.

    Attributes:
        left: A (a, a), float64.
        right: B (b, b).
        product: which of the two.
        matrix: M, to be named where it is refused.
        shift: added to the diagonal.
    """

    left: Tensor
    right: Tensor
    product: bool
    matrix: StructuredMatrix
    shift: float

    def __call__(self, x: Tensor) -> Tensor:
        """M^-1 x for columns x (a b, k), each a table by rows.

        Raises:
            Refused: M is singular.
        """
        (s, u), (t, v) = self._forms
        a, b = len(s), len(t)
        table = x.detach().cpu().numpy().reshape(a, b, -1)
        turned = np.einsum("ia,ijk,jb->bak", u.conj(), table, v, optimize=True)
        found, eye = np.zeros_like(turned), np.eye(a)
        for j in range(b):
            before = np.tensordot(t[:j, j], found[:j], 1) if j else 0.0
            rest = turned[j] - (s @ before if self.product and j else before)
            p, q = (t[j, j], self.shift) if self.product else (1.0, t[j, j] + self.shift)
            found[j] = self._triangular(p * s + q * eye, rest)
        back = np.einsum("ia,bak,jb->ijk", u, found, v.conj(), optimize=True).real
        return torch.from_numpy(np.ascontiguousarray(back.reshape(a * b, -1))).to(x.device)

    def logabsdet(self) -> tuple[Tensor, Tensor]:
        """The sign of det M and the logarithm of its size, with gradients to both sides."""
        lam, mu = (np.diag(form[0]) for form in self._forms)
        values = (np.multiply if self.product else np.add).outer(lam, mu) + self.shift
        phase = np.exp(1j * np.angle(values).sum()).real if values.all() else 0.0
        with np.errstate(divide="ignore"):
            log = np.log(np.abs(values)).sum()
        found = _Logarithm.apply(self.left, self.right, float(log), self)  # type: ignore[no-untyped-call]
        return torch.tensor(float(np.round(phase)), dtype=torch.float64, device=found.device), found

    @cached_property
    def _forms(self) -> tuple[tuple[Dense, Dense], tuple[Dense, Dense]]:
        left, right = (side.detach().cpu().numpy() for side in (self.left, self.right))
        return schur(left, output="complex"), schur(right.T, output="complex")

    def _triangular(self, m: Dense, rhs: Dense) -> Dense:
        try:
            found: Dense = solve_triangular(m, rhs, check_finite=False)
        except LinAlgError as error:
            raise singular(self.matrix, self.shift, 0.0) from error
        return found


class _Logarithm(torch.autograd.Function):
    """ln |det M|, whose gradient in A is the sum of p_j (p_j A + q_j I)^-T over the eigenvalues of B, and so in B."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, value: float, matrix: TwoSided) -> Tensor:
        ctx.of = matrix
        return torch.tensor(value, dtype=torch.float64, device=left.device)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        once("slogdet")
        m: TwoSided = ctx.of
        (s, u), (t, v) = m._forms
        left = u.conj() @ _sum_of_inverses(s, np.diag(t), m).T @ u.T
        right = v @ _sum_of_inverses(t, np.diag(s), m) @ v.conj().T
        of_a, of_b = (torch.from_numpy(np.ascontiguousarray(x.real)).to(g.device) * g for x in (left, right))
        return of_a, of_b, None, None


def _sum_of_inverses(s: Dense, values: Dense, m: TwoSided) -> Dense:
    """sum_j p_j (p_j S + q_j I)^-1."""
    eye, found = np.eye(len(s)), np.zeros_like(s)
    for value in values:
        p, q = (value, m.shift) if m.product else (1.0, value + m.shift)
        found += p * m._triangular(p * s + q * eye, eye)
    return found


def two_sided(parts: list[StructuredMatrix], matrix: StructuredMatrix, shift: float) -> TwoSided | None:
    """A kron I + I kron B from its two summands, or A kron B, where a side is not symmetric; None where it is none."""
    sides = {type(part): part for part in parts}
    if len(parts) == 2 and sides.keys() == {Interleaved, Repeated}:
        first: Any = sides[Interleaved]
        second: Any = sides[Repeated]
        fits = first.matrix.shape == (second.copies,) * 2 and second.matrix.shape == (first.copies,) * 2
        pair = (in_float64(first.matrix), in_float64(second.matrix)) if fits else None
    elif len(parts) == 1 and isinstance(parts[0], Kronecker) and parts[0].left.ndim == 2:
        pair = parts[0].left.double(), parts[0].right.double()
        pair = pair if all(side.shape[0] == side.shape[1] for side in pair) else None
    else:
        pair = None
    if pair is None or all(map(is_symmetric, pair)):
        return None
    return TwoSided(*pair, product=len(parts) == 1, matrix=matrix, shift=shift)
