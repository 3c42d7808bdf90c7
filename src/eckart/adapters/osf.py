"""The smallest singular triplets train, and never reach into the space of the largest."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters._svd_form import leaves, triplets
from eckart.adapters.contract import Frozen, Layer, Paths, Schedule, Start, adapter, check_rank

SMALLEST = 1e-6
"""Singular values of the frozen part below this share of the first are rounding."""


class Projection:
    """Takes off what the optimizer's step moved into the frozen space, on both sides.

    U_lo and V_lo start orthogonal to U_hi and V_hi, so that projecting them is projecting the step; nothing has to be
    remembered. The published code projects the gradient instead, which Adam undoes by dividing it entry by entry.
    """

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self.state: dict[str, Tensor] = {}
        self.kept = [(*leaves(path), *leading(frozen(name), path)) for name, path in paths.items()]

    @torch.no_grad()
    def step(self, done: int) -> None:
        for left, _, right, u, vh in self.kept:
            left.sub_(u @ (u.T @ left))
            right.sub_((right @ vh.T) @ vh)


def leading(weight: Tensor, path: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """U_hi (out, k) and V_hi^T (k, in) of the frozen matrix, in the dtype of the path."""
    left, values, _ = leaves(path)  # type: ignore[arg-type]
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    count = min(len(s) - len(values), int((s > SMALLEST * s[0]).sum()))
    return u[:, :count].to(left.dtype).contiguous(), vh[:count].to(left.dtype).contiguous()


def projection(paths: Paths, steps: int, frozen: Frozen) -> Schedule:
    """The schedule that keeps what trains off the space that is to stay; see `Projection`."""
    return Projection(paths, steps, frozen)


@adapter(
    "osf",
    paper="Nayak 2025, arXiv 2504.07097",
    expression="Sum(Dense, Chain(Dense*, Diagonal*, Dense*))",
    parameters=lambda out, columns, rank: rank * (out + columns + 1),
    schedule=projection,
)
def osf(layer: Layer) -> Start:
    """W = U_hi S_hi V_hi^T + U_lo S_lo V_lo^T, of which the second trains, off the space of the first.

    The rank is the number of triplets that train, the smallest; the paper sets it for each layer by its importance.
    """
    rank = check_rank(layer)
    u, s, vh = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    left, values, right = u[:, -rank:], s[-rank:], vh[-rank:]
    return Start(triplets(left.to(layer.dtype), values.to(layer.dtype), right.to(layer.dtype)), split=True)
