"""What "close" means: the error of a matrix, weighted on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused

Side = Tensor | None


@dataclass(frozen=True)
class Metric:
    """The error `||L^1/2 (W - What) R^1/2||_F^2`.

    Attributes:
        left: L of shape (out, out), or its diagonal (out,), or None for the identity. Symmetric positive semi-definite.
        right: R of shape (in, in), or its diagonal (in,), or None for the identity. Likewise.

    Raises:
        Refused: a side is no such vector or matrix, or has NaN or Inf entries.

    With R = E[x x^T] the error is the mean squared error of the output; with L = E[g g^T] too, g the gradient of the
    loss by the output, half of it is the rise of the loss to second order (the Kronecker-factored Fisher).

    >>> import torch
    >>> W = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> Metric().error(W).item()
    25.0
    >>> Metric(left=torch.tensor([1.0, 0.0])).error(W).item()
    9.0
    """

    left: Side = None
    right: Side = None

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, side in (("left", self.left), ("right", self.right)):
            if side is not None and not _semidefinite(side):
                raise Refused(
                    f"Metric: {name} is not symmetric positive semi-definite (for a vector: has negative entries), so "
                    "that it is no measure of error"
                )

    @classmethod
    def measured(cls, left: Side = None, right: Side = None) -> Metric:
        """A metric of covariances, which rounding may leave with eigenvalues below zero; they count as zero."""
        made = object.__new__(cls)
        object.__setattr__(made, "left", left)
        object.__setattr__(made, "right", right)
        made._check_numbers()
        return made

    def _check_numbers(self) -> None:
        for name, side in (("left", self.left), ("right", self.right)):
            if side is None:
                continue
            if not isinstance(side, Tensor) or not side.is_floating_point():
                kind = side.dtype if isinstance(side, Tensor) else type(side).__name__
                raise Refused(f"Metric: {name} must be a tensor of floating-point numbers, got {kind}")
            if side.ndim not in (1, 2) or (side.ndim == 2 and side.shape[0] != side.shape[1]):
                raise Refused(f"Metric: {name} must be a vector or a square matrix, got shape {tuple(side.shape)}")
            # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
            if not (torch.isfinite(side.sum()) or torch.isfinite(side).all()):
                raise Refused(f"Metric: {name} has NaN or Inf entries; were the statistics collected on finite data?")

    def error(self, difference: Tensor) -> Tensor:
        """Squared error of `difference` = W - What, shape (out, in): a scalar in float64.

        Products are in the precision of `difference`, at least float32; the sum is in float64.
        """
        if not isinstance(difference, Tensor):
            raise Refused(f"Metric.error needs a matrix, got {type(difference).__name__}")
        d = difference.detach().to(torch.promote_types(difference.dtype, torch.float32))
        if d.ndim != 2:
            raise Refused(f"Metric.error needs a matrix, got shape {tuple(d.shape)}")
        error = (_times(self.left, d) * _times(self.right, d.T).T).sum(dtype=torch.float64)
        if not torch.isfinite(error) and d.dtype != torch.float64:
            return self.error(d.double())
        return error.clamp_min(0)


TOLERANCE = 1e-2
"""A side may be negative by so much of its largest entry: a second moment less that of the mean is, by rounding."""
LARGEST_TRIED = 512
"""Rows up to which a side is tried for eigenvalues below zero; of larger ones only the diagonal is looked at."""


def _semidefinite(side: Tensor) -> bool:
    """Whether a finite side is symmetric and has no eigenvalue below zero, rounding allowed for."""
    s = side.detach()
    if not s.numel():
        return False
    values = (s if s.ndim == 1 else s.diagonal()).double()
    largest = float(values.amax().clamp_min(0))
    if float(values.amin()) < -TOLERANCE * largest:
        return False
    if s.ndim == 1:
        return True
    scale = max(abs(float(end)) for end in s.aminmax())
    if scale == 0:
        return True
    if _asymmetry(s) > TOLERANCE * scale or largest < (1 - TOLERANCE) * scale:
        return False  # no entry of a semi-definite matrix is larger than the largest of its diagonal
    if len(s) > LARGEST_TRIED:
        return True
    raised = s.double() / scale
    raised = (raised + raised.T) / 2
    raised.diagonal().add_(TOLERANCE)
    return bool(torch.linalg.cholesky_ex(raised).info.item() == 0)


def _asymmetry(s: Tensor) -> float:
    """The largest |s_ij - s_ji|, some rows at a time: copies of a large matrix would be most of a fit's memory."""
    parts = zip(torch.split(s, LARGEST_TRIED), torch.split(s, LARGEST_TRIED, 1), strict=True)
    return max(float((rows.double() - columns.T.double()).abs().amax()) for rows, columns in parts)


def _times(side: Side, matrix: Tensor) -> Tensor:
    if side is None:
        return matrix
    if side.shape[0] != matrix.shape[0]:
        raise Refused(f"Metric: a side of size {side.shape[0]} does not fit a dimension of size {matrix.shape[0]}")
    side = side.to(matrix)
    return side[:, None] * matrix if side.ndim == 1 else side @ matrix
