"""The largest singular triplets of a matrix, without the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.ops.powers_of_two import power_of_two

_SMALLEST_SIDE = 128
_LARGEST_SHARE = 0.5
"""Of a shorter side, or a Krylov space as a share of it, beyond which all eigenvectors cost no more."""
_SMALLEST_VALUE = 1e-4
"""Squared singular values below this share of the first are blurred by products in float32."""
_NORMS = 1e-9, 1e9
"""Frobenius norms whose fourth power float32 holds."""


def truncated_svd(
    matrix: Tensor, rank: int, *, tolerance: float = 1e-3, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The best approximation U diag(s) V^T of a given rank, as nearly as asked.

    Block Lanczos with full orthogonalisation on the Gram matrix of the shorter side (Golub and Underwood 1977; Musco
    and Musco 2015, arXiv 1504.05477), with products in float32, until the squares that are missing from s are known to
    be few. Where the space would be large, or small singular values are wanted beside large ones, all eigenvectors of
    the Gram matrix in float64, or the whole SVD, are taken instead.

    Args:
        matrix: W (out, in), any float dtype.
        rank: 1 to min(out, in).
        tolerance: `||W - U U^T W||_F` is at most 1 + tolerance times the least possible, up to the reliability of the
            estimate. Angles between the spaces found and the exact ones are of the order of the square root of
            `tolerance ||W - W_r||^2 / (s_r^2 - s_{r+1}^2)`, large where two singular values nearly tie at the cut.
        generator: of the starting block.

    Returns:
        U (out, rank), s (rank,) descending, V^T (rank, in); float64. U^T W = diag(s) V^T or W V = U diag(s).

    Raises:
        Refused: NaN or Inf entries, or a rank outside its range.
    """
    w = matrix.detach()
    if not 1 <= rank <= min(w.shape):
        raise Refused(f"rank={rank} is not in 1..{min(w.shape)}")
    flat = w.shape[0] <= w.shape[1]
    short = w if flat else w.T
    found = _lanczos(short.float(), rank, tolerance, generator) or _exact(short.double(), rank)
    u, s, vh = (t.double() for t in found)
    return (u, s, vh) if flat else (vh.T, s, u.T)


def _lanczos(
    a: Tensor, rank: int, tolerance: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`truncated_svd` of a (n, m), n <= m, from a Krylov space; None where that does not pay or is not accurate."""
    n, m = a.shape
    block = max(4, (rank + 1) // 2)
    most = int(_LARGEST_SHARE * n) // block
    steps = -(-4 * rank // block)
    square = float(torch.linalg.vector_norm(a)) ** 2
    if n < _SMALLEST_SIDE or steps > most or not _NORMS[0] ** 2 < square < _NORMS[1] ** 2:
        return None
    q, p = a.new_empty(most * block, n), a.new_empty(most * block, m)
    # What the operator is in the basis q; eigh reads its lower triangle.
    t = a.new_zeros(most * block, most * block)
    x = (torch.rand(block, m, generator=generator, dtype=a.dtype) - 0.5).to(a.device) @ a.T
    basis, triangle = torch.linalg.qr(x.T)
    done = size = 0
    while done < most:
        for _ in range(done, steps):
            start, size = size, size + block
            q[start:size] = basis.T
            x = torch.mm(q[start:size], a, out=p[start:size]) @ a.T
            t[start:size, :size] = inner = x @ q[:size].T
            x = x - inner @ q[:size]
            x = x - (x @ q[:size].T) @ q[:size]
            basis, triangle = torch.linalg.qr(x.T)
        done = steps
        ritz, vectors = torch.linalg.eigh(t[:size, :size])
        ritz, y = ritz.flip(0), vectors[:, -rank:].flip(1)
        if not ritz[rank - 1] > _SMALLEST_VALUE * ritz[0]:
            return None
        residuals = torch.linalg.vector_norm(triangle @ y[-block:], dim=0)
        goal = 2 * tolerance * max(square - float(ritz[:rank].sum()), 1e-6 * square)
        missing = float(missing_squares(ritz, residuals))
        if missing <= goal:
            rows = y.T @ p[:size]
            s = torch.linalg.vector_norm(rows, dim=1)
            return (y.T @ q[:size]).T, s, rows / s[:, None]
        # What is missing about halves with each step.
        steps = min(most, steps + min(4, 1 + int(math.log2(missing / goal))))
    return None


def missing_squares(ritz: Tensor, residuals: Tensor) -> Tensor:
    """An estimate of `sum_i (lambda_i - theta_i)` over the largest eigenvalues, from Ritz pairs.

    To second order a residual adds `residual^2 / (theta_i - mu)`, mu being the Rayleigh quotient of its direction. It
    is taken for 0.7 of the next Ritz value, and the sum times 4: the least that kept all matrices of the language model
    in `benchmarks/adapters/starts.py` within the tolerance. The bound of Kato and Temple has the next eigenvalue for
    mu and is far too large where that is close.

    Args:
        ritz: theta, descending, more than r of them.
        residuals: norms of the residuals of the first r.
    """
    rank = len(residuals)
    return 4 * (residuals.square() / (ritz[:rank] - 0.7 * ritz[rank])).sum()


def _exact(a: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """`truncated_svd` of a (n, m), n <= m, float64, from all eigenvectors of a a^T, or the SVD where that blurs it."""
    if not torch.isfinite(a).all():
        raise Refused("the matrix has NaN or Inf entries")
    scale = power_of_two(a)
    # Two factors, as the reciprocal of a subnormal number overflows.
    scaled = a * (1 / math.sqrt(scale)) * (1 / math.sqrt(scale))
    values, vectors = torch.linalg.eigh(scaled @ scaled.T)
    values, u = values[-rank:].flip(0), vectors[:, -rank:].flip(1)
    if values[-1] > 1e-8 * values[0]:
        rows = u.T @ scaled
        s = torch.linalg.vector_norm(rows, dim=1)
        return u, s * scale, rows / s[:, None]
    u, s, vh = torch.linalg.svd(scaled, full_matrices=False)
    return u[:, :rank], s[:rank] * scale, vh[:rank]
