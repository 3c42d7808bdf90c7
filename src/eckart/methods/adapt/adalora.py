"""Triplets in the form of an SVD, of which training keeps those that matter."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.methods.adapters import Frozen, Layer, Paths, Schedule, Start, adapter, check_rank
from eckart.methods.triplets import leaves, orthonormality, triplets
from eckart.structures.scaled import Scaled

WEIGHT = 0.5
"""Of the regulariser."""
DECAY = 0.85
"""Of the moving averages of the sensitivity and of its spread."""
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

    In between, every hundredth of the steps, the triplets of least importance are set to zero. Importance is that of
    section 3.2: for each number w, the moving average of its sensitivity |w dloss/dw| times that of how far the
    sensitivity is from its average; for a triplet, that of its value plus the means over both vectors.

    Attributes:
        state: the moving averages, and which triplets are kept in the end.
    """

    def __init__(self, paths: Paths, steps: int) -> None:
        self.parts = {name: leaves(path) for name, path in paths.items()}
        sizes = [len(values) for _, values, _ in self.parts.values()]
        self.first, self.target = sum(sizes), sum(2 * size // 3 for size in sizes)
        self.begin, self.end, self.every = steps // 10, steps - 3 * steps // 10, max(1, steps // 100)
        self.state: dict[str, Tensor] = {}
        for name, leaf in self._leaves():
            self.state[f"{name}/average"] = torch.zeros_like(leaf, requires_grad=False)
            self.state[f"{name}/spread"] = torch.zeros_like(leaf, requires_grad=False)
        for name, (_, values, _) in self.parts.items():
            self.state[f"{name}/kept"] = torch.ones_like(values, dtype=torch.bool, requires_grad=False)

    def _leaves(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(f"{name}/{i}", leaf) for name, part in self.parts.items() for i, leaf in enumerate(part)]

    def budget(self, done: int) -> int:
        """How many triplets there are after so many steps: what is beyond the target falls as a cube (section 3.3)."""
        if done <= self.begin:
            return self.first
        rest = max(0.0, 1 - (done - self.begin) / (self.end - self.begin))
        return int((self.first - self.target) * rest**3 + self.target)

    @torch.no_grad()
    def step(self, done: int) -> None:
        if done < self.end:
            self._observe()
        if done == self.end or (self.begin < done < self.end and done % self.every == 0):
            self._choose(self.budget(done))
        elif done < self.end:
            return
        for name, (_, values, _) in self.parts.items():
            values.mul_(self.state[f"{name}/kept"])

    def _observe(self) -> None:
        if all(leaf.grad is None for _, leaf in self._leaves()):
            raise ValueError("adalora found no gradient: call step() before gradients are set to zero")
        for name, leaf in self._leaves():
            # A layer that the loss does not depend on has none, and no sensitivity.
            sensitivity = torch.zeros_like(leaf) if leaf.grad is None else (leaf * leaf.grad).abs()
            average, spread = self.state[f"{name}/average"], self.state[f"{name}/spread"]
            average.mul_(DECAY).add_(sensitivity, alpha=1 - DECAY)
            spread.mul_(DECAY).add_((sensitivity - average).abs(), alpha=1 - DECAY)

    def _choose(self, budget: int) -> None:
        scores = []
        for name in self.parts:
            left, values, right = (
                self.state[f"{name}/{i}/average"] * self.state[f"{name}/{i}/spread"] for i in range(3)
            )
            scores.append(values + left.mean(0) + right.mean(1))
        together = torch.cat(scores)
        kept = torch.zeros_like(together, dtype=torch.bool)
        kept[together.argsort(descending=True, stable=True)[:budget]] = True
        for name, each in zip(self.parts, torch.split(kept, [len(score) for score in scores]), strict=True):
            self.state[f"{name}/kept"] = each


def schedule(paths: Paths, steps: int, frozen: Frozen) -> Schedule:
    """See `Budget`."""
    return Budget(paths, steps)


@adapter(
    "adalora",
    paper="Zhang 2023, arXiv 2303.10512",
    expression="Sum(Dense, Chain(Dense*, Diagonal*, Dense*))",
    parameters=lambda out, columns, rank: initial(rank) * (out + columns + 1),
    scaled=True,
    regulariser=regulariser,
    schedule=schedule,
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
