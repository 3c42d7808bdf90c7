"""Ridge regression on a tall table of features that comes in blocks of rows, for all ridges at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused

Blocks = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives the rows of (F, Y) once more each time it is called: blocks (b, k) and (b, t) in float64."""


@dataclass(frozen=True)
class TallRidge:
    """argmin |F w - Y|^2 + alpha |w|^2 for every alpha, from F = Q R by blocks and R = U diag(values) V^T.

    No product F^T F is formed, which would square the condition.

    Attributes:
        values: of F, those that are not zero to working precision, (r,).
        right: V (k, r).
        targets: U^T Q^T Y (r, t).
    """

    values: Tensor
    right: Tensor
    targets: Tensor

    def weights(self, alpha: float) -> Tensor:
        """w (k, t); the shortest for alpha = 0."""
        return self.right @ ((self.values / (self.values.square() + alpha))[:, None] * self.targets)

    def left_out(self, blocks: Blocks, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors at each row of the regression without that row, summed up over rows, and the best's residuals.

        y_i - w_{-i} f_i = (y_i - w f_i) / (1 - h_i) with the leverage h_i = f_i (F^T F + alpha)^-1 f_i.

        Args:
            blocks: of F and Y again.
            alphas: (a,), positive.

        Returns:
            (a, t), and y_i - w_{-i} f_i (n, t) for the alpha of the least sum.
        """
        shrunk = self.values.square() / (self.values.square() + alphas[:, None])
        errors = []
        for features, targets in blocks():
            scores = features @ (self.right / self.values)
            kept = 1 - scores.square() @ shrunk.T
            rests = targets - torch.einsum("br,ar,rt->abt", scores, shrunk, self.targets)
            errors.append(rests / kept.clamp_min(torch.finfo(torch.float64).eps).T[:, :, None])
        every = torch.cat(errors, 1)
        sums = every.square().sum(1)
        return sums, every[int(sums.sum(1).argmin())]


def tall_ridge(blocks: Blocks) -> TallRidge:
    """Reads F (n, k) and Y (n, t) once, with memory for k + t rows and a block.

    Args:
        blocks: of F and Y, one or more.

    Raises:
        Refused: NaN or Inf entries.
    """
    held: Tensor | None = None
    k = 0
    for features, targets in blocks():
        k = features.shape[1]
        rows = torch.cat([features, targets], 1)
        if not torch.isfinite(rows).all():
            raise Refused(f"{int((~torch.isfinite(rows)).sum())} NaN or Inf entries among features and targets")
        held = torch.linalg.qr(rows if held is None else torch.cat([held, rows]), mode="r").R
    if held is None:
        raise Refused("there are no rows to regress on")
    left, values, right = torch.linalg.svd(held[:k, :k], full_matrices=False)
    keep = values > len(values) * torch.finfo(torch.float64).eps * values.max() if len(values) else values > 0
    return TallRidge(values[keep], right[keep].T, left[:, keep].T @ held[:k, k:])
