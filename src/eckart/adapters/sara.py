"""The smallest entries of the matrix train, where they are."""

from __future__ import annotations

from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.adapters.contract import Frozen, Layer, Paths, Start, adapter, check_rank
from eckart.structures.sparse import Sparse

PENALTY = 1e-4
"""Of the nuclear norm of what trains."""


def numbers(out: int, columns: int, rank: int) -> int:
    return min(rank * (out + columns), out * columns)


def smallest(weight: Tensor, count: int, dtype: torch.dtype) -> Sparse:
    """The `count` entries of a matrix that are smallest in size, in their places."""
    out, columns = weight.shape
    places = weight.abs().flatten().topk(count, largest=False).indices.sort().values
    offsets = F.pad((places // columns).bincount(minlength=out).cumsum(0), (1, 0))
    return Sparse(weight.flatten()[places].to(dtype), places % columns, offsets, size=columns)


def nuclear_norm(paths: Paths) -> Tensor:
    """The penalty times the nuclear norm of one matrix of what trains, another one in each step.

    Which one is read off the values themselves: as good as random, and a run that is resumed goes on alike.
    """
    matrices = list(paths.values())
    values = next(matrices[0].parameters()).detach().cpu().contiguous()
    chosen = matrices[crc32(values.view(torch.uint8).numpy().tobytes()) % len(matrices)]
    norm: Tensor = torch.linalg.matrix_norm(chosen.to_dense(), "nuc")
    return PENALTY * norm


class Progression:
    """Half-way, entries that have grown beyond the threshold have done their part: they keep their values from then on.

    The threshold is the largest of the entries that were chosen, as it was at the start.
    """

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self._half = max(1, steps // 2)
        self._paths = {name: path for name, path in paths.items() if isinstance(path, Sparse)}
        self.state = {f"{name}/threshold": path.values.detach().abs().max() for name, path in self._paths.items()}

    @torch.no_grad()
    def step(self, done: int) -> None:
        for name, path in self._paths.items():
            if f"{name}/grown" in self.state:
                kept = torch.where(self.state[f"{name}/grown"], self.state[f"{name}/values"], path.values)
                path.values.copy_(kept)
            elif done >= self._half:
                self.state[f"{name}/grown"] = path.values.abs() > self.state[f"{name}/threshold"]
                self.state[f"{name}/values"] = path.values.clone()


@adapter(
    "sara",
    paper="Hu 2024, arXiv 2409.06633",
    expression="Sum(Dense, Sparse*)",
    parameters=numbers,
    regulariser=nuclear_norm,
    schedule=Progression,
)
def sara(layer: Layer) -> Start:
    """The r (out + in) smallest entries of W train; half-way, those of them that are small still go on alone.

    They start at their values in W, which is zero in their places instead. `rank` r sets their number, and so the
    threshold, where the paper has one threshold for all matrices. The nuclear norm of what trains, of one matrix in
    each step, is added to the loss.
    """
    out, columns = layer.weight.shape
    return Start(smallest(layer.weight, numbers(out, columns, check_rank(layer)), layer.dtype), split=True)
