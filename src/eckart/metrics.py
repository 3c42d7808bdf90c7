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
        for name, side in (("left", self.left), ("right", self.right)):
            if side is None:
                continue
            if side.ndim not in (1, 2) or (side.ndim == 2 and side.shape[0] != side.shape[1]):
                raise Refused(f"Metric: {name} must be a vector or a square matrix, got shape {tuple(side.shape)}")
            # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
            if not (torch.isfinite(side.sum()) or torch.isfinite(side).all()):
                raise Refused(f"Metric: {name} has NaN or Inf entries; were the statistics collected on finite data?")

    def error(self, difference: Tensor) -> Tensor:
        """Squared error of `difference` = W - What, shape (out, in): a scalar in float64.

        Products are in the precision of `difference`, at least float32; the sum is in float64.
        """
        d = difference.detach().to(torch.promote_types(difference.dtype, torch.float32))
        if d.ndim != 2:
            raise Refused(f"Metric.error needs a matrix, got shape {tuple(d.shape)}")
        error = (_times(self.left, d) * _times(self.right, d.T).T).sum(dtype=torch.float64)
        if not torch.isfinite(error) and d.dtype != torch.float64:
            return self.error(d.double())
        return error.clamp_min(0)


def _times(side: Side, matrix: Tensor) -> Tensor:
    if side is None:
        return matrix
    if side.shape[0] != matrix.shape[0]:
        raise Refused(f"Metric: a side of size {side.shape[0]} does not fit a dimension of size {matrix.shape[0]}")
    side = side.to(matrix)
    return side[:, None] * matrix if side.ndim == 1 else side @ matrix
