"""How evenly hidden states use their directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.diagnostics._hidden_states import standardized
from eckart.diagnostics.contract import Column, Numbers, diagnostic
from eckart.linalg.spectrum import entropy


def matrix_entropy(hidden: Tensor) -> float:
    """-tr(K ln K) / ln d in [0, 1], K = R^T R / tr(R^T R), R the standardized states (tokens, d) (Wei et al. 2024)."""
    if hidden.shape[1] < 2:
        return 0.0
    r = standardized(hidden)
    gram = r.T @ r if len(r) >= r.shape[1] else r @ r.T
    return entropy(torch.linalg.eigvalsh(gram).clamp_min(0)) / math.log(hidden.shape[1])


@diagnostic(
    "matrix-entropy",
    paper="Wei et al. 2024, arXiv 2401.17139",
    of="hidden states",
    gives={
        "matrix_entropy": Column(
            "Entropy of the eigenvalues of their covariance, by the logarithm of the dimension",
            title="matrix entropy, 1 = all directions alike",
            short="matrix entropy",
        )
    },
)
def entropy_of_states(hidden: Tensor) -> Numbers:
    """The entropy of the spectrum of the hidden states' covariance: 1 where all directions are used alike.

    -tr(K ln K) / ln d with K = R^T R / tr(R^T R), R the states less their mean, each in unit length. It falls as a
    model compresses what it has read.

    Args:
        hidden: (tokens, d).

    Raises:
        Refused: no matrix of finite numbers, or fewer than two different states.
    """
    return {"matrix_entropy": matrix_entropy(hidden)}
