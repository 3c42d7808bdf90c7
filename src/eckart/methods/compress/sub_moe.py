"""Experts that do nearly the same merged into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from eckart.linalg.clusters import k_means
from eckart.methods.lowrank import LowRank, fit_low_rank
from eckart.methods.registry import Fitted, Members, compressor, together
from eckart.metrics import Metric
from eckart.mixture import Mixture
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.dense import Dense
from eckart.structures.quantized import finite_matrix
from eckart.structures.shared import Shared

CHUNK = 256
"""Tokens whose outputs exist at a time."""
POOL = 2048
"""Tokens of all experts together whose outputs are compared; at least eight of each that was reached."""


@compressor(
    "sub-moe",
    paper="Li 2025, arXiv 2506.23266",
    expression="Dense or Shared",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_SAMPLE),
)
def sub_moe(weight: Tensor, statistics: Statistics) -> LowRank:
    """Experts with similar outputs merged: a cluster of them is one expert, the mean by how often each was visited.

    K-means by the cosine of the outputs of all experts on tokens of all of them. The paper merges a cluster in the
    joint decomposition [W_1 ... W_n] = U S [V_1 ... V_n] as U S (sum_i f_i V_i), f_i the share of the visits. That is
    sum_i f_i W_i: at full rank the decomposition cancels, and cut off at rank r it gives P_r sum_i f_i W_i, P_r the
    projection on r columns of U. As the mean is what minimises sum_i f_i ||A - W_i||^2, cutting off never brings it
    closer in this norm: it saves bytes, which no candidate here does. Neurons are averaged in the order they have, so
    experts with the same neurons in another order do not merge well. Biases stay each expert's own and are left out of
    the outputs. Matrices that are in no mixture get the best low rank in the input metric.
    """
    return fit_low_rank(weight, Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT)))


def merging(label: Tensor, visits: Tensor) -> Tensor:
    """M (n, n) with row i the shares of all experts in what expert i becomes: f_j = visits_j / sum over its cluster."""
    same = (label[:, None] == label).double()
    # A cluster that nobody visits is a plain mean.
    weight = same * (visits + 1e-12 * visits.sum().clamp_min(1))
    return weight / weight.sum(1, keepdim=True)


class MergedExperts:
    """Numbers of merged experts as candidates; see `eckart.methods.registry.JointFamily`.

    The error is that of the outputs of every matrix on sampled inputs of its own, a mean over tokens times how many of
    `visits` go there. Where fewer experts do better than more, the larger candidate is the smaller one.
    """

    def __init__(self, weights: Sequence[Tensor], statistics: Sequence[Statistics], mixture: Mixture) -> None:
        self._weights = [finite_matrix(w) for w in weights]
        self._count, self._roles = mixture.count, len(weights) // mixture.count
        self._visits = torch.tensor([float(s.tokens) for s in statistics[:: self._roles]], dtype=torch.float64)
        if not self._visits.any():
            raise ValueError("no token of the calibration data reached any of the experts")
        samples = [_thinned(s, max(8, POOL // self._count)) for s in statistics]
        shares = self._visits / self._visits.sum()
        # Of each matrix (expert, role) the inner products of what all experts of that role make of its inputs.
        self._products = torch.zeros(self._count, self._roles, self._count, self._count, dtype=torch.float64)
        for role in range(self._roles):
            matrices = self._role(role)
            for expert, x in enumerate(samples[role :: self._roles]):
                if x is not None:
                    outputs = torch.stack([x.to(w) @ w.T for w in matrices]).flatten(1).double()
                    self._products[expert, role] = shares[expert] / len(x) * (outputs @ outputs.T)
        self._labels = clusters(self, [x for x in samples[:: self._roles] if x is not None], mixture)
        self.sizes: Sequence[int] = range(1, self._count)

    def _role(self, role: int) -> list[Tensor]:
        """The matrices of a role, of every expert, in at least float32."""
        found = self._weights[role :: self._roles]
        return [w.to(torch.promote_types(w.dtype, torch.float32)) for w in found]

    def outputs(self, x: Tensor, mixture: Mixture) -> Iterator[Tensor]:
        """The outputs of each expert on inputs (n, in): (n, out)."""
        for *entering, leaving in zip(*map(self._role, range(self._roles)), strict=True):
            inner = mixture.inner([x.to(w) @ w.T for w in entering])
            yield inner @ leaving.T

    def _measured(self, size: int) -> Tensor:
        """Squared error of each matrix, (experts, roles)."""
        lost = torch.eye(self._count, dtype=torch.float64) - merging(self._labels[size], self._visits)
        return torch.einsum("ej,erjk,ek->er", lost, self._products, lost).clamp_min(0)

    @cached_property
    def _best(self) -> dict[int, int]:
        """For each size the best one up to it."""
        errors = [float(self._measured(size).sum()) for size in self.sizes]
        return {size: self.sizes[min(range(i + 1), key=errors.__getitem__)] for i, size in enumerate(self.sizes)}

    @property
    def errors(self) -> Tensor:
        return torch.stack([self._measured(self._best[size]).sum() for size in self.sizes])

    @property
    def zero_error(self) -> float:
        return float(torch.einsum("eree->", self._products))

    def _owners(self, size: int) -> list[int]:
        """Of each expert the first one of its cluster."""
        label = self._labels[self._best[size]].tolist()
        return [label.index(own) for own in label]

    @property
    def costs(self) -> Sequence[Cost]:
        numbers = sum(w.numel() for w in self._weights) // self._count
        stored = [numbers * len(set(self._owners(size))) for size in self.sizes]
        return [Cost(n, n * self._weights[0].element_size(), numbers * self._count) for n in stored]

    def build(self, size: int) -> list[Fitted]:
        if size not in self.sizes:
            raise ValueError(f"there is no candidate of {size!r} experts; there are 1 to {self._count - 1}")
        shares = merging(self._labels[self._best[size]], self._visits)
        errors = self._measured(self._best[size])
        fitted: list[Fitted] = []
        for expert, owner in enumerate(self._owners(size)):
            for role in range(self._roles):
                structure: StructuredMatrix
                if owner < expert:
                    structure = Shared(fitted[owner * self._roles + role].structure)
                else:
                    parts = self._weights[role :: self._roles]
                    mean = [f * w.double() for f, w in zip(shares[expert], parts, strict=True) if f]
                    structure = Dense(sum(mean[1:], mean[0]).to(parts[0].dtype))
                fitted.append(Fitted(structure, None, float(errors[expert, role])))
        return fitted


def _thinned(statistics: Statistics, most: int) -> Tensor | None:
    """At most so many sampled inputs of a matrix; None where no token reached it."""
    if not statistics.tokens:
        return None
    x = statistics.get(Need.INPUT_SAMPLE)
    return x[:: -(-len(x) // most)]


def clusters(family: MergedExperts, samples: Sequence[Tensor], mixture: Mixture) -> dict[int, Tensor]:
    """The cluster of each expert, (experts,), for every number of clusters below that of the experts."""
    gram = torch.zeros(mixture.count, mixture.count, dtype=torch.float64)
    for x in torch.split(torch.cat(list(samples)), CHUNK):
        y = torch.stack(list(family.outputs(x, mixture))).flatten(1).double()
        gram += y @ y.T
    if not torch.isfinite(gram).all():
        raise ValueError("the experts' outputs on calibration data have NaN or Inf entries")
    norm = gram.diagonal().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    values, vectors = torch.linalg.eigh(gram / norm[:, None] / norm)
    # Points whose inner products are the cosines.
    points = vectors * values.clamp_min(0).sqrt()
    generator = torch.Generator().manual_seed(0)
    return {k: k_means(points, k, generator) for k in range(1, mixture.count)}


@together("sub-moe", "experts", size="experts")
def merged_experts(members: Members) -> MergedExperts:
    """All experts of a layer, each with the same matrices."""
    assert members.mixture is not None
    return MergedExperts(members.weights, members.statistics, members.mixture)
