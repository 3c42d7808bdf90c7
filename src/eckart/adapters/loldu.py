"""The leading pivots of an LU decomposition train."""

from __future__ import annotations

import scipy.linalg
import torch
from torch import Tensor

from eckart.adapters._svd_form import frozen
from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal
from eckart.structures.kronecker import Kronecker
from eckart.structures.permutation import Permutation

SMALLEST_PIVOT = 1e-9
"""A pivot below this share of its row's largest entry is replaced by that entry."""


@adapter(
    "loldu",
    paper="Shi 2024, arXiv 2410.13618",
    expression="Sum(Dense, Chain(Permutation, Dense, Diagonal*, Kronecker*, Dense))",
    parameters=lambda out, columns, rank: rank + 1,
)
def loldu(layer: Layer) -> Start:
    """W = P L_r diag(z) c U_r + rest, of which the r pivots z and the scalar c train; c = 1 at the start.

    c stands as the Kronecker product of a 1 x 1 matrix and the identity.
    """
    rank = check_rank(layer)
    order, lower, pivots, upper = ldu(layer.weight.double())
    one = torch.ones(1, 1, dtype=layer.dtype)
    scalar = Kronecker(one, torch.eye(rank, dtype=layer.dtype))
    scalar.right.requires_grad_(False)
    path = Chain(
        Permutation(order),
        frozen(Dense(lower[:, :rank].to(layer.dtype).contiguous())),
        Diagonal(pivots[:rank].to(layer.dtype).contiguous()),
        scalar,
        frozen(Dense(upper[:rank].to(layer.dtype).contiguous())),
    )
    return Start(path, split=True)


def ldu(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W[i] = (L diag(z) U)[order[i]] with partial pivoting: L lower, U upper triangular with unit diagonals.

    Where a pivot vanishes, z holds the largest entry of the row of U instead, or 1 for a row of zeros, and the diagonal
    of U is not 1 there.

    Args:
        weight: W (out, in), float64.

    Returns:
        order (out,), L (out, k), z (k,), U (k, in) with k = min(out, in).
    """
    order, lower, upper = (torch.from_numpy(part) for part in scipy.linalg.lu(weight.numpy(), p_indices=True))
    pivots, largest = upper.diagonal(), upper.abs().amax(1)
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    z = torch.where(pivots.abs() > SMALLEST_PIVOT * largest, pivots, safe)
    return order.long(), lower, z, upper / z[:, None]
