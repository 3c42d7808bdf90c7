"""Dense matrices that lose entries while they train: which are least, and what is stored in the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.parametrizations.contract import Structures
from eckart.structures.base import StructuredMatrix
from eckart.structures.dense import Dense
from eckart.structures.masked import Masked


def weights_of(structures: Structures) -> dict[str, nn.Parameter]:
    """The matrices, by name."""
    return {name: each.weight for name, each in structures.items() if isinstance(each, Dense)}


def least(weight: Tensor, count: int) -> Tensor:
    """Where the `count` entries of least absolute value are: bool, of the shape of W."""
    where = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    where[weight.detach().abs().flatten().topk(count, largest=False).indices] = True
    return where.view(weight.shape)


def masked(structure: StructuredMatrix) -> StructuredMatrix:
    """What is not zero, and a bit for each place."""
    weight = structure.to_dense()
    return Masked.from_dense(weight, weight != 0)
