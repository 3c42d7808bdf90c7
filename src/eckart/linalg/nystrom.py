"""Units of a random vector that the others are predicted from by least squares."""

from __future__ import annotations

import torch
from torch import Tensor


def by_leverage(moment: Tensor, ridge: float) -> Tensor:
    """Indices by descending ridge leverage s_i = [C (C + ridge I)^-1]_ii = 1 - ridge [(C + ridge I)^-1]_ii.

    Args:
        moment: C (n, n), positive semi-definite, float64.
        ridge: above zero.
    """
    identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    root = torch.linalg.cholesky(moment + ridge * identity)
    inverse = torch.linalg.solve_triangular(root, identity, upper=False)
    order: Tensor = inverse.square().sum(0).argsort(stable=True)
    return order


def nystrom_gains(weight: Tensor, moment: Tensor, order: Tensor) -> Tensor:
    """What each further unit explains of W h where W h is predicted, by least squares, from the units before it.

    With C = L L^T, units in that order, h = L z of white z, and the first k units know the first k of z: unit k
    explains |W L_k|^2.

    Args:
        weight: W (out, n), float64.
        moment: C = E[h h^T] (n, n), positive definite.
        order: (n,).

    Returns:
        (n,), in that order; they sum up to E|W h|^2.
    """
    root = torch.linalg.cholesky(moment[order][:, order])
    gains: Tensor = (weight[:, order] @ root).square().sum(0)
    return gains


def nystrom(weight: Tensor, moment: Tensor, kept: Tensor) -> Tensor:
    """W C[:, S] C[S, S]^-1 (out, k): the best prediction of W h from the units S of h."""
    root = torch.linalg.cholesky(moment[kept][:, kept])
    return torch.cholesky_solve((weight @ moment[:, kept]).T, root).T
