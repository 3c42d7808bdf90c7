"""The matrix is split along the directions in which its outputs vary."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.low_rank import damped
from eckart.statistics.needs import Need
from eckart.structures.low_rank import low_rank

DAMPING = 0.01
"""What is added to the diagonal of C, in units of its mean."""
LEAST = 1e-6
"""Singular values are taken for at least this share of the largest, so that no factor is zero or infinite."""


@adapter(
    "corda",
    paper="Yang 2024, arXiv 2406.05223",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    needs=(Need.INPUT_SECOND_MOMENT,),
    scaled=True,
)
def corda(layer: Layer) -> Start:
    """The r components of W C that are largest train: C = E[x x^T] over data of the new task (instruction-previewed).

    See `split`.
    """
    rank = check_rank(layer)
    return split(layer, slice(0, rank))


@adapter(
    "corda-keep",
    paper="Yang 2024, arXiv 2406.05223",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    needs=(Need.INPUT_SECOND_MOMENT,),
    scaled=True,
)
def corda_keep(layer: Layer) -> Start:
    """The r components of W C that are smallest train: C = E[x x^T] over data to be remembered (knowledge-preserved).

    See `split`. That it forgets less than LoRA at equal learning is not reproduced, because on images turned or with
    pixels in another order it loses more of what the net knew; not measured so on a language model.
    """
    most = min(layer.weight.shape)
    rank = check_rank(layer)
    return split(layer, slice(most - rank, most))


def split(layer: Layer, chosen: slice) -> Start:
    """`W C = U S V^T`; `U S V^T C^-1` of some components trains, shared out by the root of S.

    As `S V^T C^-1 = U^T W` whatever C is, no inverse is taken. C is damped as in the authors' code, and its mean
    eigenvalue is 1 here, so that inputs without any direction give the factors of PiSSA.
    """
    weight = layer.weight.double()
    u, s = oriented(weight, layer.statistics.get(Need.INPUT_SECOND_MOMENT))
    root = (s.clamp_min(LEAST * float(s[0]) or 1.0) / layer.scale).sqrt()[chosen]
    left = u[:, chosen]
    right = left.T @ weight / (layer.scale * root[:, None])
    return Start(low_rank((left * root).to(layer.dtype), right.to(layer.dtype)), split=True)


def oriented(weight: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """U (out, k) orthonormal and S (k,) descending of W C, k = min(out, in), C damped and of mean eigenvalue 1.

    Args:
        weight: W (out, in), float64.
        moment: E[x x^T] (in, in), or its diagonal, float64.
    """
    c = damped(moment, DAMPING)
    c = c / (c if c.ndim == 1 else c.diagonal()).mean()
    product = weight * c if c.ndim == 1 else weight @ c
    flat = product.shape[0] <= product.shape[1]
    values, vectors = torch.linalg.eigh(product @ product.T if flat else product.T @ product)
    s, vectors = values.flip(0).clamp_min(0).sqrt(), vectors.flip(1)
    # The orthonormal factor of W C V is U, also where singular values vanish.
    return (vectors if flat else torch.linalg.qr(product @ vectors).Q), s
