"""How many directions hidden states use: matrix entropy, nuclear norm, and a surrogate of it that needs no SVD."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.spectrum import check, entropy


def standardized(hidden: Tensor) -> Tensor:
    """Hidden states (tokens, d) less their mean over the tokens, each scaled to unit length; float64.

    Raises:
        Refused: no matrix of finite numbers, or fewer than two different states.
    """
    check(hidden)
    r = hidden.detach().double()
    r = r - r.mean(0)
    length = torch.linalg.vector_norm(r, dim=1, keepdim=True)
    scale = torch.linalg.vector_norm(hidden.double(), dim=1).max()
    alive = length > 1e-12 * scale
    if not alive.any():
        raise Refused(f"the {len(hidden)} hidden states are all the same, so they have no directions")
    return torch.where(alive, r / torch.where(alive, length, 1.0), 0.0)


def matrix_nuclear_norm(hidden: Tensor) -> float:
    """The L1,2 norm of the D = min(tokens, d) longest columns, divided by the tokens (Li et al. 2024).

    With R the standardized states, sum_j ||R_j||_2 / L is at least the nuclear norm of R by L where no column is left
    out, since R = sum_j R_j e_j^T and each term has that nuclear norm; they agree where the columns are orthogonal. It
    takes O(tokens d) operations.

    Args:
        hidden: (tokens, d).

    Raises:
        Refused: as `standardized`.
    """
    columns = torch.linalg.vector_norm(standardized(hidden), dim=0)
    return float(columns.topk(min(hidden.shape)).values.sum()) / len(hidden)


def nuclear_norm(hidden: Tensor) -> float:
    """The sum of the singular values of the standardized states, divided by the tokens."""
    return float(torch.linalg.svdvals(standardized(hidden)).sum()) / len(hidden)


def matrix_entropy(hidden: Tensor) -> float:
    """-tr(K ln K) / ln d in [0, 1], K = R^T R / tr(R^T R), R the standardized states (tokens, d) (Wei et al. 2024)."""
    if hidden.shape[1] < 2:
        return 0.0
    r = standardized(hidden)
    gram = r.T @ r if len(r) >= r.shape[1] else r @ r.T
    return entropy(torch.linalg.eigvalsh(gram).clamp_min(0)) / math.log(hidden.shape[1])
