"""The family of experts merged into fewer: every number of clusters from one measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from eckart.compressors.contract import Fitted, Members
from eckart.errors import Refused
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.dense import Dense
from eckart.structures.quantized import finite_matrix
from eckart.structures.shared import Shared


def merging(label: Tensor, visits: Tensor) -> Tensor:
    """M (n, n) with row i the shares of all experts in what expert i becomes: f_j = visits_j / sum over its cluster."""
    same = (label[:, None] == label).double()
    # A cluster that nobody visits is a plain mean.
    weight = same * (visits + 1e-12 * visits.sum().clamp_min(1))
    return weight / weight.sum(1, keepdim=True)


class MergedExperts:
    """Numbers of merged experts as candidates, a cluster of them one expert: a `JointFamily`.

    The error is that of the outputs of every matrix on sampled inputs of its own, a mean over tokens times how many of
    `visits` go there. Where fewer experts do better than more, the larger candidate is the smaller one.

    Args:
        members: the matrices, expert by expert, and how many tokens visit each.
        samples: inputs of every matrix, (n, in), None where no token reached it.
        labels: for each number of clusters below that of the experts, the cluster of each expert, (experts,).

    Raises:
        Refused: weights have NaN or Inf entries.
    """

    def __init__(self, members: Members, samples: Sequence[Tensor | None], labels: Mapping[int, Tensor]) -> None:
        assert members.mixture is not None
        self._weights, self._labels = [finite_matrix(w) for w in members.weights], labels
        self._count = members.mixture.count
        self._roles = len(self._weights) // self._count
        visits = [float(s.tokens) for s in members.statistics[:: self._roles]]
        self._visits = torch.tensor(visits, dtype=torch.float64)
        shares = self._visits / self._visits.sum()
        # Of each matrix (expert, role) the inner products of what all experts of that role make of its inputs.
        self._products = torch.zeros(self._count, self._roles, self._count, self._count, dtype=torch.float64)
        for role in range(self._roles):
            matrices = [w.to(torch.promote_types(w.dtype, torch.float32)) for w in self._weights[role :: self._roles]]
            for expert, x in enumerate(samples[role :: self._roles]):
                if x is not None:
                    outputs = torch.stack([x.to(w) @ w.T for w in matrices]).flatten(1).double()
                    self._products[expert, role] = shares[expert] / len(x) * (outputs @ outputs.T)
        self.sizes: Sequence[int] = range(1, self._count)

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
            raise Refused(f"there is no candidate of {size!r} experts; there are 1 to {self._count - 1}")
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
