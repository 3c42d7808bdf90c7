"""The inputs' principal components, and a rank for each matrix by what they explain."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.errors import Refused
from eckart.linalg.truncated_svd import truncated_svd
from eckart.statistics.moments import covariance
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import StructuredMatrix
from eckart.structures.low_rank import low_rank

CAP = 2
"""A matrix gets at most so many times the rank asked for; rho in the paper."""
TOLERANCE = 1e-6
"""Of the components: data sets differ by more."""


def components(covariance: Tensor, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The largest variances (k,) and their directions (k, in); the covariance may be given by its diagonal."""
    if covariance.ndim == 1:
        values, index = covariance.topk(count)
        return values, torch.nn.functional.one_hot(index, len(covariance)).double()
    _, values, directions = truncated_svd(covariance, count, tolerance=TOLERANCE, generator=generator)
    return values, directions


def shared_out(matrices: Mapping[str, StructuredMatrix], known: Mapping[str, Statistics], rank: int) -> dict[str, int]:
    """As many components as matrices times ranks: those that explain most of the variance of their inputs.

    A matrix can be left without any.

    Raises:
        Refused: a rank that the smallest matrix does not allow.
    """
    most = min(min(matrix.shape) for matrix in matrices.values())
    if not 1 <= rank <= most:
        raise Refused(f"rank={rank} is not in 1..{most}, what the smallest matrix allows")
    explained: dict[tuple[int, int], Tensor] = {}
    shares = []
    for name, structure in matrices.items():
        # Matrices with one input share its statistics.
        key = id(known[name].input_second_moment), min(CAP * rank, *structure.shape)
        if key not in explained:
            matrix = covariance(known[name])
            total = float((matrix if matrix.ndim == 1 else matrix.diagonal()).sum())
            values, _ = components(matrix, key[1], torch.Generator().manual_seed(0))
            explained[key] = values / total if total > 0 else torch.zeros_like(values)
        shares.append(explained[key])
    owners = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor([len(share) for share in shares]))
    best = torch.cat(shares).argsort(descending=True, stable=True)[: rank * len(matrices)]
    counts = owners[best].bincount(minlength=len(matrices)).tolist()
    return dict(zip(matrices, counts, strict=True))


@adapter(
    "eva",
    paper="Paischer 2024, arXiv 2410.07170",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN),
    scaled=True,
    ranks=shared_out,
)
def eva(layer: Layer) -> Start:
    """W + (alpha / r) B A with B = 0 and A the first principal components of the centred inputs.

    Ranks differ between matrices, see `shared_out`; r in the scale is the one asked for. The components are those of
    the whole covariance, where the paper follows them from batch to batch.
    """
    rank = check_rank(layer)
    _, directions = components(covariance(layer.statistics), rank, layer.generator)
    a = directions.to(layer.dtype).contiguous()
    return Start(low_rank(a.new_zeros(layer.weight.shape[0], rank), a))
