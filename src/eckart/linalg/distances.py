"""Squared distances between points, exact where points coincide, with gradients that are right there too."""

from __future__ import annotations

from typing import Any

import torch
from scipy.spatial.distance import cdist
from torch import Tensor

SMALL = 32
"""Dimensions up to which differences are taken one by one, which needs no products and rounds nothing away."""
CLOSE = 1e-7
"""A squared distance by |x|^2 + |z|^2 below which the product x z has rounded too much of it away."""


def squared_distances(x: Tensor, z: Tensor | None = None) -> Tensor:
    """|x_i - z_j|^2, not negative, and zero where the points are equal.

    In many dimensions as |x|^2 + |z|^2 - 2 x z around one of the points, and by differences where these are small.
    Gradients of every order go to both, also at distance zero.

    Args:
        x: (n, d), float64.
        z: (m, d); x where it is None.

    Returns:
        (n, m).
    """
    x, other = around_one(x, z)
    found: Tensor = _SquaredDistances.apply(x, other)  # type: ignore[no-untyped-call]
    return found


def around_one(x: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Points less one of them: what all have in common has no part in distances, and would take digits of gradients.

    As they came where a difference overflows.
    """
    other = x if z is None else z
    if not len(other):
        return x, other
    near = x - other[:1].detach()
    there = near if z is None else other - other[:1].detach()
    return (near, there) if all_finite(near) and (there is near or all_finite(there)) else (x, other)


def all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite, by their sum, which is read once, wherever that does not overflow."""
    held = x.detach()
    return bool(torch.isfinite(held.sum()) or torch.isfinite(held).all())


def _values(x: Tensor, z: Tensor) -> Tensor:
    if x.shape[1] <= SMALL or not len(x) or not len(z):
        if x.device.type == "cpu" and x.dtype is torch.float64:  # SciPy is faster.
            return torch.from_numpy(cdist(x.detach().numpy(), z.detach().numpy(), "sqeuclidean"))
        return torch.cdist(x, z, compute_mode="donot_use_mm_for_euclid_dist").square()
    size = x.square().sum(1)[:, None] + z.square().sum(1)
    found = torch.addmm(size, x, z.T, alpha=-2).clamp_min_(0)
    first, second = (~(found >= CLOSE * size)).nonzero(as_tuple=True)  # NaN too, of numbers whose squares overflow
    step = max(1, 2**24 // x.shape[1])
    for at in range(0, len(first), step):
        i, j = first[at : at + step], second[at : at + step]
        found[i, j] = (x[i] - z[j]).square().sum(1)
    return found


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(x, z)
        return _values(x, z)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, z = ctx.saved_tensors
        return 2 * (g.sum(1)[:, None] * x - g @ z), 2 * (g.sum(0)[:, None] * z - g.T @ x)
