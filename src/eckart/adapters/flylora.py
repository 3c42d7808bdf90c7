"""A frozen sparse projection that also chooses which columns of the other factor act."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters.contract import Frozen, Layer, Paths, Start, adapter, check_rank
from eckart.structures.dense import Dense
from eckart.structures.gated import Gated
from eckart.structures.sparse import Sparse

SHARE = 4
"""One in so many columns of B is active, and one in so many entries of A is there."""
RATE = 1e-3
"""What the bias of a column moves in a step."""


def width(out: int, columns: int, rank: int) -> int:
    """Columns of B: as many as have at most the numbers of a low-rank adapter of that rank."""
    return max(1, rank * (out + columns) // out)


def projection(rows: int, columns: int, dtype: torch.dtype, generator: torch.Generator) -> Sparse:
    """A: in / 4 entries in each row, in random places, normal with deviation 1 / rows."""
    filled = max(1, columns // SHARE)
    places = torch.rand(rows, columns, generator=generator).topk(filled, 1).indices.sort(1).values
    values = torch.randn(rows * filled, generator=generator, dtype=dtype) / rows
    offsets = torch.arange(0, rows * filled + 1, filled)
    return Sparse(values, places.flatten(), offsets, size=columns)


class Balance:
    """Columns that were active less often than the others become more likely to be, and the other way round."""

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self.state: dict[str, Tensor] = {}
        self._gates = [m for path in paths.values() for m in path.modules() if isinstance(m, Gated)]

    def step(self, done: int) -> None:
        for gate in self._gates:
            if gate.tally is not None:
                counts = gate.tally.to(gate.bias)
                gate.bias += RATE * (counts.mean() - counts).sign()
                gate.tally = None


@adapter(
    "flylora",
    paper="Zou 2025, arXiv 2510.08396",
    expression="Sum(Dense, Gated(Dense*, Sparse))",
    parameters=lambda out, columns, rank: out * width(out, columns, rank),
    scaled=True,
    schedule=Balance,
)
def flylora(layer: Layer) -> Start:
    """W x + (alpha / r) B (m * A x), m the quarter of the |A x + d| that is largest; B = 0 at the start, A is frozen.

    d is raised for what was active less often than the mean and lowered for the others, a fixed amount a step. Only B
    trains; `rank` r gives it n = floor(r (out + in) / out) columns, at most the numbers of a low-rank adapter, where
    the paper calls n the rank. The path depends on its input: it is no matrix, and cannot be merged into W; paths of
    several tasks stand beside W together (`eckart.combine`).

    That they are added up without interference is reproduced; a LoRA whose random A does not train does as well, so it
    is A and not the gates.
    """
    out, columns = layer.weight.shape
    n = width(out, columns, check_rank(layer))
    a = projection(n, columns, layer.dtype, layer.generator)
    a.requires_grad_(False)
    b = torch.zeros(out, n, dtype=layer.dtype)
    return Start(Gated(Dense(b), a, bias=b.new_zeros(n), active=max(1, n // SHARE)))
