"""The principal singular vectors turn, as products of reflections, and stay orthonormal."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters._svd_form import frozen
from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.truncated_svd import truncated_svd
from eckart.structures.compose import Chain
from eckart.structures.diagonal import Diagonal
from eckart.structures.householder import Householder
from eckart.structures.permutation import Selection


def reflections(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of which the reflections make an orthonormal basis: `B = H(v_1) ... H(v_r) [diag(signs); 0]`.

    Householder's QR decomposition, whose triangle is diagonal where the columns are orthonormal. v_i has zeros before
    its i-th entry and the length sqrt(n): a step that moves every entry by as much turns a matrix of any size by the
    same angle.

    Args:
        basis: B (n, r), orthonormal columns, float64.

    Returns:
        The vectors (r, n) and the signs (r,), each 1 or -1.
    """
    rest, vectors, signs = basis.clone(), torch.zeros_like(basis.T), basis.new_ones(basis.shape[1])
    for i in range(basis.shape[1]):
        column = rest[i:, i].clone()
        signs[i] = -1.0 if column[0] > 0 else 1.0
        column[0] -= signs[i] * column.norm()
        v = vectors[i, i:] = column / column.norm()
        rest[i:] -= 2 * torch.outer(v, v @ rest[i:])
    return vectors * len(basis) ** 0.5, signs


@adapter(
    "householder-projector",
    paper="Song 2023, arXiv 2307.08012",
    expression="Sum(Dense, Chain(Householder*, Selection, Diagonal, Selection, Householder*))",
)
def householder_projector(layer: Layer) -> Start:
    """W = (W - P) + P with P = U_r S_r V_r^T; U_r and V_r train as products of r reflections each, S_r is frozen.

    The Householder projector: a low-rank orthogonal matrix `H(u_1) ... H(u_r) S H(v_r) ... H(v_1)`, S diagonal, that
    starts from the singular vectors of the pretrained weights. However it trains, U_r and V_r are orthonormal and the
    singular values of P are those of W: r (out + in) numbers, as many as a LoRA of the rank has.

    Two departures, without which the model would not be itself at the start: S holds the singular values, where the
    paper has ones, and what is not principal stays beside P, where the paper drops it. A zero matrix has nothing to
    turn, and does not learn.
    """
    (out, columns), rank = layer.weight.shape, check_rank(layer)
    u, s, vh = truncated_svd(layer.weight, rank, generator=layer.generator)
    (left, plus), (right, minus) = reflections(u), reflections(vh.T)
    first = torch.arange(rank, device=s.device)
    path = Chain(
        Householder(left.to(layer.dtype)),
        Selection(first, size=out, adjoint=True),
        frozen(Diagonal((plus * s * minus).to(layer.dtype))),
        Selection(first, size=columns),
        Householder(right.flip(0).to(layer.dtype)),
    )
    return Start(path, split=True)
