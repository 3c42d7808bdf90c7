"""The best low-rank approximation in a two-sided metric, for every rank at once, and its cheapest storage."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from eckart.metrics import Metric, Side


@dataclass(frozen=True)
class Projection:
    """The nested optima of `||L^1/2 (W - What) R^1/2||_F` under rank(What) <= r, r = 0, 1, ..., min(out, in).

    What_r = synthesis[:, :r] analysis[:, :r]^T W  on the left, or  W analysis[:, :r] synthesis[:, :r]^T  on the right:
    an oblique projection of W, orthogonal in the metric. No pseudo-inverse of W or of a singular moment is involved.

    Attributes:
        analysis: (out, k) on the left, (in, k) on the right; k = min(out, in).
        synthesis: the same shape; analysis^T synthesis = I where the metric is not singular.
        left: the side of W it acts on.
        errors: squared error at rank 0, 1, ..., k; float64, non-increasing, the last one zero.
    """

    analysis: Tensor
    synthesis: Tensor
    left: bool
    errors: Tensor

    def factors(self, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """What_r as (out, r) and (r, in), in the dtype of the projection."""
        if not 0 <= rank < len(self.errors):
            raise ValueError(f"rank {rank} is outside 0..{len(self.errors) - 1}")
        a, s = self.analysis[:, :rank], self.synthesis[:, :rank]
        w = weight.to(a.dtype)
        return (s, a.T @ w) if self.left else (w @ a, s.T)


def project(weight: Tensor, metric: Metric) -> Projection:
    """The best approximations of W at all ranks in a metric, from one symmetric eigendecomposition.

    With L = G G^T and R = H H^T let M = G^T W H = U S V^T. The optimum of rank r is W H V_r V_r^T H^-1 and, equally,
    G^-T U_r U_r^T G^T W (Eckart and Young 1936 in the weighted norm). A one-sided metric takes the form without an
    inverse; a two-sided one inverts the factor of the shorter side, which therefore should not be singular.

    Args:
        weight: W, (out, in), any float dtype.
        metric: sides None, vectors or matrices.

    Returns:
        A `Projection` in float64.

    Raises:
        ValueError: W has NaN or Inf entries, or a side does not fit its shape.
    """
    if weight.ndim != 2:
        raise ValueError(f"a matrix is needed, got shape {tuple(weight.shape)}")
    w = weight.detach().double()
    if not torch.isfinite(w).all():
        raise ValueError("the weight has NaN or Inf entries")
    out, columns = w.shape
    for side, size in ((metric.left, out), (metric.right, columns)):
        if side is not None and side.shape[0] != size:
            raise ValueError(f"a side of the metric has size {side.shape[0]}, the weight is {out} x {columns}")
    scale = _power_of_two(w.abs().max())
    w = w / scale
    g, g_scale = _root(metric.left)
    h, h_scale = _root(metric.right)
    m = _multiply(w, g, h)
    on_left = metric.left is None and (metric.right is not None or out <= columns)
    if metric.left is not None and metric.right is not None:
        on_left = out <= columns
    values, basis = _singular_basis(m, left=on_left)
    tail = torch.cat([values.flip(0).cumsum(0).flip(0), values.new_zeros(1)])
    if on_left:
        analysis, synthesis = _dual(g, basis)
    else:
        analysis, synthesis = _dual(h, basis)
    return Projection(analysis, synthesis, on_left, tail * (scale * g_scale * h_scale) ** 2)


def _power_of_two(value: Tensor) -> float:
    """A power of two near a value, so that scaling by it is exact; 1 for zero."""
    v = float(value)
    return 2.0 ** max(-1000, min(1000, int(torch.frexp(value.double()).exponent))) if v > 0 else 1.0


def _root(side: Side) -> tuple[Side, float]:
    """G with side = G G^T times the square of the returned scale; lower triangular where the side is definite."""
    if side is None:
        return None, 1.0
    s = side.detach().double()
    largest = s.abs().max() if s.ndim == 1 else s.diagonal().abs().max()
    scale = _power_of_two(largest.sqrt())
    s = s / scale / scale
    if s.ndim == 1:
        return s.clamp_min(0).sqrt(), scale
    s = (s + s.T) / 2
    root, info = torch.linalg.cholesky_ex(s)
    if info.item() == 0:
        return root, scale
    eigenvalues, vectors = torch.linalg.eigh(s)
    return vectors * eigenvalues.clamp_min(0).sqrt(), scale


def _multiply(w: Tensor, g: Side, h: Side) -> Tensor:
    """G^T W H."""
    if g is not None:
        w = g[:, None] * w if g.ndim == 1 else g.T @ w
    if h is not None:
        w = w * h if h.ndim == 1 else w @ h
    return w


def _singular_basis(m: Tensor, left: bool) -> tuple[Tensor, Tensor]:
    """Squared singular values of M, descending, and its singular vectors on one side, k = min(shape) of them.

    From the Gram matrix of the shorter side; when the longer side's vectors are wanted, they are the orthonormal
    factor of M V, which stays orthonormal (and nested) where singular values vanish.
    """
    rows, columns = m.shape
    short_left = rows <= columns
    values, vectors = torch.linalg.eigh(m @ m.T if short_left else m.T @ m)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if left != short_left:
        vectors = torch.linalg.qr((m.T if short_left else m) @ vectors).Q
    return values, vectors


def _dual(root: Side, basis: Tensor) -> tuple[Tensor, Tensor]:
    """(G u, G^-T u): analysis and synthesis vectors of an orthonormal basis u in the metric G G^T."""
    if root is None:
        return basis, basis
    if root.ndim == 1:
        inverse = torch.where(root > 0, 1 / root, torch.zeros_like(root))
        return root[:, None] * basis, inverse[:, None] * basis
    if torch.equal(root, root.tril()):
        return root @ basis, torch.linalg.solve_triangular(root.T, basis, upper=True)
    return root @ basis, torch.linalg.pinv(root.T, rtol=1e-10) @ basis


def skeleton(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Stores `left @ right` as r of its own rows and the others as combinations of them: r (out + in - r) numbers.

    A matrix of rank r has r (out + in - r) degrees of freedom; two factors hold r^2 more. The rows are picked by QR
    with column pivoting of left^T, which keeps the combinations small. Where left is numerically of a smaller rank,
    that rank is used.

    Args:
        left: (out, r), r <= out.
        right: (r, in).

    Returns:
        pivots (r,) int64: the rows picked, at least one; rest (out - r, r): the others, in ascending order, as
        combinations of them; rows (r, in): the picked rows of the product. All in float64.
    """
    a = left.double()
    _, triangle, order = scipy.linalg.qr(a.T.numpy(), mode="economic", pivoting=True, check_finite=False)
    r = torch.from_numpy(triangle)
    diagonal = r.diagonal().abs()
    rank = max(1, int((diagonal > _RANK_TOLERANCE * diagonal[0]).sum()))
    chosen = torch.from_numpy(order.astype("int64"))
    pivots, others = chosen[:rank], chosen[rank:]
    if diagonal[0] > 0:
        combined = torch.linalg.solve_triangular(r[:rank, :rank], r[:rank, rank:], upper=True).T
    else:
        combined = a.new_zeros(len(others), rank)
    return pivots, combined[others.argsort()], a[pivots] @ right.double()


_RANK_TOLERANCE = 1e-13
