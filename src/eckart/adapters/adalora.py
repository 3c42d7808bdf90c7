"""Triplets in the form of an SVD, of which training keeps those that matter."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters._importance import averages, importance, observe, surplus
from eckart.adapters._svd_form import leaves, orthonormality, triplets
from eckart.adapters.contract import Frozen, Layer, Paths, Start, adapter, check_rank
from eckart.errors import Refused
from eckart.structures.scaled import Scaled

WEIGHT = 0.5
"""Of the regulariser."""
DEVIATION = 0.02
"""Of the entries of both factors at the start."""
SMALL = 1e-5
"""Added to the rank that the path is divided by, as in PEFT."""


def initial(rank: int) -> int:
    """The rank to start with, one and a half times the one asked for."""
    return (3 * rank + 1) // 2


def regulariser(paths: Paths) -> Tensor:
    """Half the mean of `||B^T B - I||_F` and `||A A^T - I||_F`, as in PEFT; the paper squares the norms."""
    return WEIGHT * orthonormality(paths)


class Budget:
    """Fewer triplets step by step: for a tenth of the steps all, for the last three tenths those of the budget.

    In between, every hundredth of the steps, the triplets of least importance are set to zero. The importance of a
    triplet is that of its value plus the means over both vectors (section 3.2; see `eckart.adapters._importance`).

    Attributes:
        state: the moving averages, and which triplets are kept in the end.
    """

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self.parts = {name: leaves(path) for name, path in paths.items()}
        sizes = [len(values) for _, values, _ in self.parts.values()]
        self.first, self.target = sum(sizes), sum(2 * size // 3 for size in sizes)
        self.begin, self.end, self.every = steps // 10, steps - 3 * steps // 10, max(1, steps // 100)
        self._leaves = {f"{name}/{i}": leaf for name, part in self.parts.items() for i, leaf in enumerate(part)}
        self.state = averages(self._leaves)
        for name, (_, values, _) in self.parts.items():
            self.state[f"{name}/kept"] = torch.ones_like(values, dtype=torch.bool, requires_grad=False)

    def budget(self, done: int) -> int:
        """How many triplets there are after so many steps."""
        return int((self.first - self.target) * surplus(done, self.begin, self.end) + self.target)

    @torch.no_grad()
    def step(self, done: int) -> None:
        if done < self.end:
            if all(leaf.grad is None for leaf in self._leaves.values()):
                raise Refused("adalora found no gradient: call step() before gradients are set to zero")
            observe(self.state, self._leaves)
        if done == self.end or (self.begin < done < self.end and done % self.every == 0):
            self._choose(self.budget(done))
        elif done < self.end:
            return
        for name, (_, values, _) in self.parts.items():
            values.mul_(self.state[f"{name}/kept"])

    def _choose(self, budget: int) -> None:
        scores = []
        for name in self.parts:
            left, values, right = (importance(self.state, f"{name}/{i}") for i in range(3))
            scores.append(values + left.mean(0) + right.mean(1))
        together = torch.cat(scores)
        kept = torch.zeros_like(together, dtype=torch.bool)
        kept[together.argsort(descending=True, stable=True)[:budget]] = True
        for name, each in zip(self.parts, torch.split(kept, [len(score) for score in scores]), strict=True):
            self.state[f"{name}/kept"] = each


@adapter(
    "adalora",
    paper="Zhang 2023, arXiv 2303.10512",
    expression="Sum(Dense, Chain(Dense*, Diagonal*, Dense*))",
    parameters=lambda out, columns, rank: initial(rank) * (out + columns + 1),
    scaled=True,
    regulariser=regulariser,
    schedule=Budget,
)
def adalora(layer: Layer) -> Start:
    """W + s B diag(e) A with e = 0; of one and a half times the triplets asked for, training keeps the important ones.

    The rank is the mean number of triplets that a matrix has in the end; the others have e = 0. As in PEFT, the path
    is divided by the number of triplets at the start.
    """
    rank = check_rank(layer)
    out, columns = layer.weight.shape
    count = initial(rank)
    left, right = (
        DEVIATION * torch.randn(shape, generator=layer.generator, dtype=layer.dtype)
        for shape in ((out, count), (count, columns))
    )
    path = triplets(left, left.new_zeros(count), right)
    return Start(Scaled(path, scale=rank / (count + SMALL)))
