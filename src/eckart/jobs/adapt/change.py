"""What an adapter changed of a matrix, as a product of two thin factors: exactly where it is one, else the best."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.structures import Chain, Dense, Kernelized, Scaled, StructuredMatrix, Sum

NOISE = 1e-12
"""Singular values below it, relative to what they are left of, are rounding of float64."""
Factors = tuple[Tensor, Tensor]


@torch.no_grad()
def as_low_rank(
    path: StructuredMatrix, taken: StructuredMatrix | None, rank: int | None
) -> tuple[Tensor, Tensor, float]:
    """Factors (out, r) and (r, in) of `path - taken`, and their relative error.

    A path of two dense factors is given as it is where nothing was taken and the rank allows. All else goes through a
    singular value decomposition in float64: of the small core of its factors, where it has thin ones, else of the whole
    change. A split matrix W = (W - B0 A0) + B A changes by [B, -B0] [A; A0], which has twice the rank.

    Args:
        path: what is beside the matrix now.
        taken: what was taken out of it at the start.
        rank: at most; None for all that the change has.

    Raises:
        Refused: no rank was asked for, and a product that is exact has more numbers than the matrix.
    """
    left_alone = factors_of(path)
    if taken is None and left_alone is not None and (rank is None or len(left_alone[1]) <= rank):
        return *left_alone, 0.0
    terms = [(path, 1.0)] if taken is None else [(path, 1.0), (taken, -1.0)]
    found = [factors_of(term) for term, _ in terms]
    thin = [pair for pair in found if pair is not None]
    if len(thin) == len(terms):
        left = torch.cat([sign * pair[0].cpu().double() for pair, (_, sign) in zip(thin, terms, strict=True)], 1)
        right = torch.cat([pair[1].cpu().double() for pair in thin])
        # The SVD of the product from that of its small core: left right = Q (R S^T) P^T.
        (q, r), (p, s) = torch.linalg.qr(left), torch.linalg.qr(right.T)
        u, values, vh = torch.linalg.svd(r @ s.T, full_matrices=False)
        u, vh = q @ u, vh @ p.T
        size = float(torch.linalg.vector_norm(r) * torch.linalg.vector_norm(s))
    else:
        whole = [sign * exactly(term) for term, sign in terms]
        u, values, vh = torch.linalg.svd(sum(whole[1:], whole[0]), full_matrices=False)
        size = sum(float(torch.linalg.vector_norm(each)) for each in whole)
    count = max(1, int((values > NOISE * size).sum()))
    out, columns = path.shape
    if rank is None and len(thin) < len(terms) and count * (out + columns) > out * columns:
        raise Refused(
            f"the change has rank {count}, so that factors which hold all of it are larger than the matrix "
            f"({out} x {columns}): ask for a rank, which loses what the error says, or for rank {count}"
        )
    keep = count if rank is None else min(rank, count)
    total = torch.linalg.vector_norm(values[:count])
    error = float(torch.linalg.vector_norm(values[keep:count]) / total) if total > 0 else 0.0
    root, dtype = values[:keep].sqrt(), torch.promote_types(path.dtype, torch.float32)
    return (u[:, :keep] * root).to(dtype), (root[:, None] * vh[:keep]).to(dtype), error


@torch.no_grad()
def factors_of(path: StructuredMatrix) -> Factors | None:
    """Two dense factors whose product a structure is, thinner than itself; None where it shows no such form."""
    if isinstance(path, Scaled):
        found = factors_of(path.matrix)
        return None if found is None else (path.scale * found[0], found[1])
    parts = path.operands()
    if isinstance(path, Sum):
        pairs = [factors_of(part) for part in parts]
        thin = [pair for pair in pairs if pair is not None]
        if len(thin) < len(pairs) or sum(len(right) for _, right in thin) >= min(path.shape):
            return None
        return torch.cat([left for left, _ in thin], 1), torch.cat([right for _, right in thin])
    if not isinstance(path, Chain):
        return None
    if len(parts) == 2 and all(isinstance(part, Dense) for part in parts):
        return parts[0].to_dense().detach(), parts[1].to_dense().detach()
    waist = min(range(1, len(parts)), key=lambda i: parts[i].shape[0])
    if parts[waist].shape[0] >= min(path.shape):
        return None
    return product(parts[:waist]), product(parts[waist:])


def product(parts: list[StructuredMatrix]) -> Tensor:
    """The product of some structures, float64."""
    return exactly(parts[0] if len(parts) == 1 else Chain(*parts))


def exactly(structure: StructuredMatrix) -> Tensor:
    """A structure as a matrix, computed in float64; which of its entries are largest is decided in its own dtype."""
    if any(isinstance(part, Kernelized) for part in structure.modules()):
        return structure.to_dense().detach().cpu().double()
    return copy.deepcopy(structure).cpu().double().to_dense().detach()
