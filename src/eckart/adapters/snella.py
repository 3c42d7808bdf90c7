"""Kernelized sparse changes, matrices competing for the entries that act."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters._importance import averages, importance, observe, surplus
from eckart.adapters.contract import Frozen, Layer, Paths, Start, adapter
from eckart.adapters.snell import DENSITY, kernelized, numbers
from eckart.structures.kernelized import Kernelized

BEGIN, END = 0.1, 0.7
"""The number of entries falls between these parts of the steps."""


def allocated(scores: Tensor, sizes: Tensor, total: int) -> list[int]:
    """Shares of a total in proportion to scores, none above its size; what one cannot take goes to the others.

    Args:
        scores: (n,), not negative; where all are zero the sizes stand in for them.
        sizes: (n,), entries of each matrix.
        total: at most the sum of the sizes.

    Returns:
        Integers of at least 1, whose sum is at most `total`, but for the ones that were raised to 1.
    """
    sizes = sizes.double()
    scores = scores.double() if scores.sum() > 0 else sizes
    full = torch.zeros_like(scores, dtype=torch.bool)
    share = sizes
    for _ in range(len(scores)):
        rest = scores.masked_fill(full, 0.0)
        if rest.sum() == 0:
            break
        share = torch.where(full, sizes, (total - sizes[full].sum()) * rest / rest.sum())
        over = share > sizes
        if not over.any():
            break
        full |= over
    return [max(1, int(n)) for n in torch.minimum(share, sizes)]


class Competition:
    """Counts of entries that act, from all of them down to the target, shared out by the importance of the matrices.

    The importance of a matrix is the mean over its left factor plus the mean over its right one of the importance of
    their numbers; see `eckart.adapters._importance`.
    """

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self._steps = steps
        self._paths = {name: path for name, path in paths.items() if isinstance(path, Kernelized)}
        self._sizes = torch.tensor([path.shape[0] * path.shape[1] for path in self._paths.values()])
        self._leaves = {f"{n}/{leaf}": p for n, path in self._paths.items() for leaf, p in path.named_parameters()}
        self.state = averages(self._leaves)

    @torch.no_grad()
    def step(self, done: int) -> None:
        begin, end = int(BEGIN * self._steps), int(END * self._steps)
        if done > max(end, 1):
            return
        observe(self.state, self._leaves)
        if done <= begin < end:
            return
        scores = torch.stack([self._score(name, path) for name, path in self._paths.items()])
        total = int(self._sizes.sum() * (DENSITY + (1 - DENSITY) * surplus(done, begin, end)))
        for path, kept in zip(self._paths.values(), allocated(scores, self._sizes, total), strict=True):
            path.kept.fill_(kept)

    def _score(self, name: str, path: Kernelized) -> Tensor:
        score = torch.zeros((), dtype=torch.float64)
        for leaf, _ in path.named_parameters():
            score += importance(self.state, f"{name}/{leaf}").mean(dtype=torch.float64).cpu()
        return score


@adapter(
    "snella",
    paper="Shen 2025, arXiv 2510.24037",
    expression="Sum(Dense, Kernelized*)",
    parameters=numbers,
    schedule=Competition,
)
def snella(layer: Layer) -> Start:
    """W + D as for snell, but how many entries act is the outcome of a competition between the matrices.

    All entries act for the first tenth of the steps; then their number falls along a cubic to a tenth of them, reached
    after 70 % of the steps and fixed from there on. Each time it is shared out in proportion to smoothed sensitivity
    times uncertainty of the matrices, and inside a matrix the largest entries act.
    """
    return Start(kernelized(layer, 1.0))
