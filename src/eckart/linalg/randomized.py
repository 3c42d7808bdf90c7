"""The largest singular triplets of a matrix, without the others."""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_svd(
    matrix: Tensor, rank: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The best approximation U diag(s) V^T of a given rank.

    Args:
        matrix: (out, in), any float dtype.
        rank: 1 to min(out, in).
        generator: of the starting block.

    Returns:
        U (out, rank), s (rank,) descending, V^T (rank, in); float64.

    Raises:
        ValueError: NaN or Inf entries, or a rank outside its range.
    """
    w = matrix.detach().double()
    if not torch.isfinite(w).all():
        raise ValueError("the matrix has NaN or Inf entries")
    if not 1 <= rank <= min(w.shape):
        raise ValueError(f"rank={rank} is not in 1..{min(w.shape)}")
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return u[:, :rank], s[:rank], vh[:rank]
