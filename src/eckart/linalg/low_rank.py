"""The best low-rank approximation in a two-sided metric, for every rank at once, and its cheapest storage."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.metrics import Metric, Side
from eckart.ops.powers_of_two import power_of_two

_RANK_TOLERANCE = 1e-13


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
        """What_r as (out, r) and (r, in), in the dtype of the projection; W itself times the identity at full rank."""
        full = len(self.errors) - 1
        if not 0 <= rank <= full:
            raise Refused(f"rank {rank} is outside 0..{full}")
        if rank == full:
            whole, identity = weight.to(self.errors), self.errors.new_ones(full).diag()
            return (identity, whole) if weight.shape[0] == full else (whole, identity)
        a, s = self.analysis[:, :rank], self.synthesis[:, :rank]
        w = weight.to(a.dtype)
        return (s, a.T @ w) if self.left else (w @ a, s.T)


def project(weight: Tensor, metric: Metric) -> Projection:
    """The best approximations of W at all ranks in a metric, from one symmetric eigendecomposition.

    With L = G G^T and R = H H^T let M = G^T W H = U S V^T. The optimum of rank r is W H V_r V_r^T H^-1 and, equally,
    G^-T U_r U_r^T G^T W (Eckart and Young 1936 in the weighted norm). U and S^2 come from M M^T = G^T W R W^T G where
    out <= in, V and S^2 from M^T M otherwise, so that only the shorter side is ever factored. A one-sided metric takes
    the form without an inverse; a two-sided one inverts the factor of the shorter side, on its range if it is singular.

    Args:
        weight: W, (out, in), any float dtype.
        metric: sides None, vectors or matrices. A long side in float32 makes the products with it float32, which
            halves their time and blurs singular values below 1e-4 of the largest; the rest is float64.

    Returns:
        A `Projection` in float64.

    Raises:
        Refused: W has NaN or Inf entries, a side does not fit its shape, or the error of W overflows float64.
    """
    weighted = _weighted(weight, metric, torch.float64)
    values, basis = torch.linalg.eigh(weighted.gram)
    basis, errors = basis.flip(1), weighted.errors(values)
    if weighted.near is not None and weighted.far is None:
        # The orthonormal factor of M^T U holds the long side's vectors and is nested where singular values vanish.
        basis = torch.linalg.qr(weighted.m.T @ basis).Q
        return Projection(basis, basis, not weighted.flat, errors)
    return Projection(*_dual(weighted.root, basis), weighted.flat, errors)


def least_errors(weight: Tensor, metric: Metric) -> Tensor:
    """`Projection.errors` of `project` without the projection, in a third of its time.

    Products and eigenvalues are in the precision of the weight, at least float32, in which an error is exact to some
    1e-6 of the first.

    Args:
        weight, metric: as for `project`; it is refused what is refused there.
    """
    weighted = _weighted(weight, metric, torch.promote_types(weight.dtype, torch.float32))
    return weighted.errors(torch.linalg.eigvalsh(weighted.gram).double())


@dataclass(frozen=True)
class _Weighted:
    """M = G^T W H with the shorter dimension first, scaled by powers of two, as far as it is needed.

    Attributes:
        flat: whether it is W; W^T otherwise.
        near: the side of the metric of the shorter dimension, of which `root` is a factor.
        far: that of the longer one.
        m: the product of the root and W.
        gram: M M^T, symmetric.
        scales: of W and of the roots of both sides.
    """

    flat: bool
    near: Side
    far: Side
    root: Side
    m: Tensor
    gram: Tensor
    scales: tuple[float, float, float]

    def errors(self, values: Tensor) -> Tensor:
        """Squared errors at ranks 0, 1, ..., from the eigenvalues of `gram` in ascending order."""
        errors = torch.cat([values.clamp_min(0).cumsum(0).flip(0), values.new_zeros(1)])
        for factor in self.scales:
            errors = errors * factor * factor
        if not torch.isfinite(errors).all():
            scale, near, far = self.scales
            raise Refused(
                f"the squared error overflows float64: entries of the weight are up to {scale:.0e}, roots of the sides "
                f"up to {near:.0e} and {far:.0e}; scale them down"
            )
        return errors


def _weighted(weight: Tensor, metric: Metric, dtype: torch.dtype) -> _Weighted:
    if weight.ndim != 2:
        raise Refused(f"a matrix is needed, got shape {tuple(weight.shape)}")
    w = weight.detach()
    # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
    if not (torch.isfinite(w.sum()) or torch.isfinite(w).all()):
        raise Refused("the weight has NaN or Inf entries")
    out, columns = w.shape
    for side, size in ((metric.left, out), (metric.right, columns)):
        if side is not None and side.shape[0] != size:
            raise Refused(f"a side of the metric has size {side.shape[0]}, the weight is {out} x {columns}")
    scale = power_of_two(w)
    w = (w.to(torch.promote_types(dtype, w.dtype)) / scale).to(dtype)
    # The shorter dimension first: w is (short, long), `near` weighs its rows and `far` its columns.
    flat = out <= columns
    near, far = (metric.left, metric.right) if flat else (metric.right, metric.left)
    w = w if flat else w.T
    near_scale, far_scale = _scale(near), _scale(far)
    root = _root(near, near_scale)
    m = _multiply(root if root is None or root.ndim == 1 else root.T, w)
    # The long side may be large: it is neither copied nor scaled, its product is, in the precision it came in.
    short = m.float() if far is not None and far.dtype == torch.float32 else m
    gram = (short @ (_multiply(far, short.T / far_scale) / far_scale)).to(dtype)
    return _Weighted(flat, near, far, root, m, (gram + gram.T) / 2, (scale, near_scale, far_scale))


def nested_errors(weight: Tensor, left: Tensor, right: Tensor, metric: Metric) -> Tensor:
    """Squared error of `left[:, :r] @ right[:r]` in place of W for every r, whatever the factors, from a few products.

    With <a, b>_L = a^T L b: `||W||^2 - 2 sum_{i<=r} <l_i, W r_i>_LR + sum_{i,j<=r} <l_i, l_j>_L <r_i, r_j>_R`.

    Args:
        weight: W (out, in).
        left: (out, k).
        right: (k, in).
        metric: what the error is measured in.

    Returns:
        (k + 1,), float64, for r = 0, ..., k; exact to some 1e-15 of the first.
    """
    w, a, b = weight.double(), left.double(), right.double()
    la, rb = _multiply(metric.left, a), _multiply(metric.right, b.T)
    cross = (la * (w @ rb)).sum(0).cumsum(0)
    gram = ((a.T @ la) * (b @ rb)).cumsum(0).cumsum(1).diagonal()
    none = metric.error(w)[None]
    return torch.cat([none, none - 2 * cross + gram]).clamp_min(0)


def _scale(side: Side) -> float:
    """A power of two whose square is near the largest entry of a side."""
    if side is None:
        return 1.0
    return power_of_two((side if side.ndim == 1 else side.diagonal()).double().abs().max().sqrt())


def _root(side: Side, scale: float) -> Side:
    """G with side / scale^2 = G G^T: lower triangular if definite, else of orthogonal columns, some zero."""
    if side is None:
        return None
    s = side.detach().double() / scale / scale
    if s.ndim == 1:
        return s.clamp_min(0).sqrt()
    s = (s + s.T) / 2
    root: Tensor
    root, info = torch.linalg.cholesky_ex(s)
    if info.item() != 0:
        values, vectors = torch.linalg.eigh(s)
        root = vectors * torch.where(values > _RANK_TOLERANCE * values[-1].abs(), values, 0.0).sqrt()
    return root


def _multiply(side: Side, matrix: Tensor) -> Tensor:
    if side is None:
        return matrix
    side = side.detach().to(matrix)
    return side.clamp_min(0)[:, None] * matrix if side.ndim == 1 else side @ matrix


def _dual(root: Side, basis: Tensor) -> tuple[Tensor, Tensor]:
    """(G u, G^-T u): analysis and synthesis vectors of an orthonormal basis u in the metric G G^T."""
    if root is None:
        return basis, basis
    analysis = _multiply(root, basis)
    if root.ndim == 1:
        return analysis, torch.where(root > 0, 1 / root, 0.0)[:, None] * basis
    if (root.diagonal() > 0).all() and torch.equal(root, root.tril()):
        return analysis, torch.linalg.solve_triangular(root.T, basis, upper=True)
    # Orthogonal columns g_j: G^+T = G diag(1 / |g_j|^2).
    squares = root.square().sum(0)
    return analysis, root @ (torch.where(squares > 0, 1 / squares, 0.0)[:, None] * basis)


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


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with each pair of a column and a row of equal norm, so that neither overflows a short dtype."""
    a, b = left.double(), right.double()
    ratio = torch.linalg.vector_norm(b, dim=1) / torch.linalg.vector_norm(a, dim=0)
    s = torch.where((ratio > 0) & torch.isfinite(ratio), ratio, torch.ones_like(ratio)).sqrt()
    return a * s, b / s[:, None]


def damped(moment: Tensor, relative: float = 1e-2) -> Tensor:
    """A second moment plus `relative` times its mean eigenvalue on the diagonal; the identity for a zero moment."""
    if moment.ndim == 1:
        level = moment.mean()
        return moment + relative * level if level > 0 else torch.ones_like(moment)
    level = moment.diagonal().mean()
    if not level > 0:
        return torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    raised = moment.clone()
    raised.diagonal().add_(relative * level)
    return raised
