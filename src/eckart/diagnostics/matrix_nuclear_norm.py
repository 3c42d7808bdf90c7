"""How many directions hidden states use, without a singular value decomposition; and with one, beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.diagnostics._hidden_states import column_norms, standardized
from eckart.diagnostics.contract import Column, Numbers, diagnostic


def matrix_nuclear_norm(hidden: Tensor) -> float:
    """The L1,2 norm of the D = min(tokens, d) longest columns, divided by the tokens (Li et al. 2024).

    With R the standardized states, sum_j ||R_j||_2 / L is at least the nuclear norm of R by L where no column is left
    out, since R = sum_j R_j e_j^T and each term has that nuclear norm; they agree where the columns are orthogonal. It
    takes O(tokens d) operations.

    Args:
        hidden: (tokens, d).

    Raises:
        Refused: no matrix of finite numbers, or fewer than two different states.
    """
    return float(column_norms(hidden).topk(min(hidden.shape)).values.sum()) / len(hidden)


def nuclear_norm(hidden: Tensor) -> float:
    """The sum of the singular values of the standardized states, divided by the tokens."""
    return float(torch.linalg.svdvals(standardized(hidden)).sum()) / len(hidden)


@diagnostic(
    "matrix-nuclear-norm",
    paper="Li et al. 2024, arXiv 2410.10672",
    of="hidden states",
    gives={
        "matrix_nuclear_norm": Column(
            "Sum of the norms of the longest columns of the standardized states, by the tokens",
            title="matrix nuclear norm, by tokens",
            short="matrix nuclear norm",
        ),
        "nuclear_norm": Column(
            "Sum of their singular values, by the tokens", title="nuclear norm, by tokens", short="nuclear norm"
        ),
    },
)
def nuclear_norms(hidden: Tensor) -> Numbers:
    """The sum of the column norms of the hidden states, which bounds their nuclear norm and grows with it.

    With R the states less their mean, each in unit length, `matrix_nuclear_norm` sums the norms of the longest columns
    of R, as many as the rank can be, in O(tokens d); `nuclear_norm` sums the singular values. Both are by the number of
    tokens.

    Args:
        hidden: (tokens, d).

    Raises:
        Refused: no matrix of finite numbers, or fewer than two different states.
    """
    return {"matrix_nuclear_norm": matrix_nuclear_norm(hidden), "nuclear_norm": nuclear_norm(hidden)}
