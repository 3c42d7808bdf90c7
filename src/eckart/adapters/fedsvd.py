"""B trains alone beside an A with orthonormal rows, which a server makes anew from what its clients trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eckart.adapters.contract import Layer, Paths, Start, adapter, check_rank
from eckart.errors import Refused
from eckart.ops.powers_of_two import power_of_two
from eckart.structures.low_rank import low_rank
from eckart.structures.scaled import Scaled


def mean(factors: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The weighted mean of what clients trained, added up in float64, in the dtype of the first.

    Args:
        factors: B_k, all of one shape.
        weights: of each client, such as its number of examples; equal where there are none.

    Raises:
        Refused: no client, shapes that differ, entries that are not finite, or weights that are no shares.
    """
    if not factors:
        raise Refused("there is no client to average")
    if len({tuple(each.shape) for each in factors}) > 1:
        raise Refused(f"factors of clients must be of one shape, got {[tuple(each.shape) for each in factors]}")
    for i, each in enumerate(factors):
        if not bool(torch.isfinite(each).all()):
            raise Refused(f"what client {i} trained is not finite: leave it out of this round")
    try:
        shares = torch.tensor(
            [float(w) for w in ([1.0] * len(factors) if weights is None else weights)], dtype=torch.float64
        )
    except (TypeError, ValueError) as error:
        raise Refused(f"weights={weights!r} must be {len(factors)} numbers") from error
    if len(shares) != len(factors) or not bool(torch.isfinite(shares).all()) or shares.min() < 0 or shares.sum() <= 0:
        raise Refused(f"weights={weights!r} must be {len(factors)} finite numbers of at least 0, not all of them 0")
    total = torch.zeros_like(factors[0], dtype=torch.float64)
    for share, each in zip(shares / shares.sum(), factors, strict=True):
        total += float(share) * each.double()
    return total.to(factors[0].dtype)


def refactored(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """B := U S and A := V^T of the singular value decomposition of B A; the product stays what it is.

    From B = Q R and A = L P that of the r x r matrix R L. What it says of V lies in the rows of A, also where B has
    fewer than r directions. Where B is zero the decomposition says nothing, and A stays.

    Args:
        b: (out, r).
        a: (r, in).

    Returns:
        (out, r) and (r, in) in their dtypes, the rows of A orthonormal.
    """
    if not b.any():
        return b, a
    size, of_a = power_of_two(b), power_of_two(a)
    q, r = torch.linalg.qr(b.double() / size)
    p, l_transposed = torch.linalg.qr(a.double().T / of_a)
    u, s, vh = torch.linalg.svd(r @ l_transposed.T, full_matrices=False)
    return ((q @ (u * s)) * size * of_a).to(b.dtype), (vh @ p.T).to(a.dtype)


@torch.no_grad()
def server(paths: Paths) -> None:
    """What a server does once it has averaged B: every path is factored anew."""
    for path in paths.values():
        matrix = path.matrix if isinstance(path, Scaled) else path
        b, a = matrix.parameters()
        for leaf, value in zip((b, a), refactored(b.cpu(), a.cpu()), strict=True):
            leaf.copy_(value)


@adapter(
    "fedsvd",
    paper="Lee 2025, arXiv 2505.12805",
    expression="Sum(Dense, Chain(Dense*, Dense))",
    parameters=lambda out, columns, rank: rank * out,
    scaled=True,
    server=server,
)
def fedsvd(layer: Layer) -> Start:
    """W + (alpha / r) B A of which B trains; a server averages B and makes of B A both factors anew, by an SVD.

    In each round (`eckart.Federation`) clients train B alone, so that noise for privacy enters once and not as a
    product; the server sets B := U S, A := V^T from the SVD of (mean B_k) A. A starts with orthonormal rows, where the
    paper draws it; B = 0.

    With orthonormal rows the space that A spans never changes, and under SGD, per-sample clipping and noise included,
    B A is what it would be with that first A left as it is: a test has it to rounding. What the SVD changes comes from
    another first A, from an optimizer that looks at single entries of B (Adam), or from training A too.
    """
    rank = check_rank(layer)
    out, columns = layer.weight.shape
    drawn = torch.randn(columns, rank, generator=layer.generator, dtype=torch.float64)
    a = torch.linalg.qr(drawn).Q.T.to(layer.dtype).contiguous()
    path = low_rank(a.new_zeros(out, rank), a)
    path.operands()[1].requires_grad_(False)
    return Start(path)
