"""Which examples to label next: those that need the most bits to encode, given the ones that are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eckart.diagnostics.contract import Column, Numbers, Pool, diagnostic
from eckart.errors import Refused
from eckart.linalg.jacobian_products import columns_of_layers
from eckart.linalg.pivoted_cholesky import Pivots, greatest, pivoted_cholesky

NOISE = 0.01
"""sigma^2, by the mean of the kernel's diagonal: what of an example no other tells."""
WEIGHT = 0.1
"""Of the entropy, beside nats of the coding rate."""
DRAWS = 5
"""Random choices that the rate is held against."""


def proxy_kernel(inputs: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Callable[[int], Tensor]]:
    """The empirical tangent kernel of f(x) = V silu(U x), the mean over its outputs: its diagonal, and its columns.

    With s = silu(U x), t = silu'(U x) and v_j^2 the mean of V_cj^2 over the c, the products of the Jacobians are
    K(x, x') = s . s' + (x . x') sum_j v_j^2 t_j t'_j. No Jacobian is formed.

    Args:
        inputs: x (n, d).
        first: U (h, d).
        second: V (c, h).
    """
    x, u, v = inputs.detach().double(), first.detach().double(), second.detach().double()
    before = x @ u.T
    gate = before.sigmoid()
    s = before * gate
    t = (gate + s * (1 - gate)) * v.square().mean(0).sqrt()
    return columns_of_layers([(s[:, None], s.new_ones(len(s), 1, 1)), (x[:, None], t[:, None])])


def chosen(pool: Pool, *, noise: float = NOISE, weight: float = WEIGHT) -> Pivots:
    """Greedy choice of S for ln det(I + K_S / sigma^2) / 2 + w sum_S H, behind what is labelled (Luo et al. 2023).

    Each step takes the largest ln(d_i) / 2 + w H_i with d the diagonal of the rest of K + sigma^2 I, by
    `pivoted_cholesky`: entropies H take part in the choice, and in nothing that is computed from it. (Added to the
    diagonal, as in the authors' code, they would also divide what later examples gain.)

    Args:
        pool: kernel, entropies, labelled examples.
        noise: sigma^2 by the mean of the diagonal, above zero.
        weight: w.

    Returns:
        the pivots of K + sigma^2 I: the labelled examples first, then the picks.

    Raises:
        Refused: a bad noise or weight; NaN or Inf entries, or no positive semi-definite kernel.
    """
    if not (0 < noise < float("inf") and 0 <= weight < float("inf")):
        raise Refused(f"noise={noise} must be above zero and weight={weight} not below")
    diagonal = pool.diagonal.detach().double()
    sigma = noise * float(diagonal.mean())
    if not 0 < sigma < float("inf"):
        raise Refused(f"{noise} of a mean diagonal of {float(diagonal.mean()):.3g} is no noise; scale the kernel")
    bonus = torch.zeros_like(diagonal) if pool.entropy is None else weight * pool.entropy.detach().double()
    if not torch.isfinite(bonus).all():
        raise Refused("NaN or Inf entries among the entropies")
    known = iter(pool.labelled)

    def choose(rest: Tensor) -> int:
        i = next(known, None)
        return greatest(rest.log() / 2 + bonus) if i is None else int(i)

    def column(i: int) -> Tensor:
        found = pool.column(i).detach().double().clone()
        found[i] += sigma
        return found

    return pivoted_cholesky(diagonal + sigma, column, len(pool.labelled) + pool.picks, choose=choose)


def coding_rate(pool: Pool, index: Sequence[int], sigma: float) -> float:
    """ln det(I + K_S / sigma^2) / 2 in nats of the examples S."""
    if not index:
        return 0.0
    block = torch.stack([pool.column(i).detach().double()[list(index)] for i in index])
    return float(torch.linalg.slogdet(torch.eye(len(index), dtype=block.dtype) + block / sigma).logabsdet) / 2


@diagnostic(
    "kecor",
    paper="Luo et al. 2023, arXiv 2307.07942; greedy determinants are Chen, Zhang and Zhou 2018, arXiv 1709.05135",
    of="pool",
    gives={
        "picked": Column("Examples to label, the most telling first", kind="integers"),
        "coding_rate": Column("What they add to the coding rate of those that have labels", unit="nats"),
        "coding_rate_random": Column("What as many random ones add, in the mean over five draws", unit="nats"),
        "share_left": Column(
            "Share of the trace of K + sigma^2 I that labelled and picked examples do not span",
            unit="share",
        ),
    },
    noun="choice of examples",
)
def kecor(pool: Pool) -> Numbers:
    """Which examples to label next: those whose features need the most bits, given the labelled and the picked ones.

    The coding rate of a set S is ln det(I + K_S / sigma^2) / 2, K the products of the Jacobians of a small network on
    the features (`proxy_kernel`) or any other kernel, sigma^2 a hundredth of its mean diagonal. Examples are picked one
    after the other by what they add to it and a tenth of the entropy of their predictions.

    Args:
        pool: `Pool(*proxy_kernel(x, U, V), picks=100)`, say, with entropies where there is a model.

    Raises:
        Refused: NaN or Inf entries, or no positive semi-definite kernel.
    """
    found, labelled = chosen(pool), list(pool.labelled)
    picked = found.index[len(labelled) :].tolist()
    sigma = NOISE * float(pool.diagonal.double().mean())
    known, generator = coding_rate(pool, labelled, sigma), torch.Generator().manual_seed(pool.seed)
    free = torch.tensor(sorted(set(range(len(pool.diagonal))) - set(labelled)))
    drawn = [free[torch.randperm(len(free), generator=generator)[: pool.picks]].tolist() for _ in range(DRAWS)]
    return {
        "picked": picked,
        "coding_rate": coding_rate(pool, labelled + picked, sigma) - known,
        "coding_rate_random": sum(coding_rate(pool, labelled + some, sigma) - known for some in drawn) / DRAWS,
        "share_left": found.error / (found.error + float(found.factor.square().sum())),
    }
