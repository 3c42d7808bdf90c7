"""A matrix of which every task uses entries of its own choice."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.packing import row_bytes, unpack
from eckart.structures._checks import check_range, float_leaf, index_leaf
from eckart.structures.base import StructuredMatrix, structure


@structure("by-task")
class ByTask(StructuredMatrix):
    """M_t * W: the entries of W that task t uses, zero elsewhere; tasks may share entries.

    What is stored is W and a bit a place and task. W is formed for every product.

    Args:
        weight: W (out, in), floating point.
        masks: (tasks, out, ceil(in / 8)), uint8: 1 where a task uses an entry, packed by `packing.pack` with one bit.
        task: (1,), integer, the t that acts; set it with `task.fill_(t)`.
        begun: (1,), integer, tasks that have been learned or are being.

    Attributes:
        watch: called in every backward pass with dloss/d(M * W) (out, in), zeros of M included; None for nothing.
    """

    weight: nn.Parameter
    masks: Tensor
    task: Tensor
    begun: Tensor
    watch: Callable[[Tensor], None] | None

    def __init__(self, weight: Tensor, masks: Tensor, task: Tensor, begun: Tensor) -> None:
        out, columns = float_leaf("ByTask", "weight", weight, 2).shape
        width = row_bytes(columns, 1)
        if not isinstance(masks, Tensor) or masks.dtype != torch.uint8 or masks.shape[1:] != (out, width):
            raise Refused(f"ByTask: masks must be torch.uint8 of shape (tasks, {out}, {width})")
        task, begun = (
            index_leaf("ByTask", name, each, 1, len(masks), torch.int64)
            for name, each in (("task", task), ("begun", begun))
        )
        if len(task) != 1 or len(begun) != 1 or len(masks) < 1:
            raise Refused(f"ByTask: task and begun are one number each, of at least one mask, got {len(masks)}")
        super().__init__((out, columns))
        self.leaf("weight", weight)
        self.leaf("masks", masks)
        self.leaf("task", task)
        self.leaf("begun", begun)
        self.watch = None

    def mask(self, task: int) -> Tensor:
        """Which entries a task uses: bool (out, in)."""
        return unpack(self.masks[task], 1, self.shape[1]).view(torch.bool)

    def before(self, task: int) -> Tensor:
        """Which entries the tasks before one use: bool (out, in)."""
        found = torch.zeros(self.shape, dtype=torch.bool, device=self.device)
        for other in range(task):
            found |= self.mask(other)
        return found

    def to_dense(self) -> Tensor:
        dense = self.weight * self.mask(int(self.task))
        if self.watch is not None and dense.requires_grad:
            dense.register_hook(self.watch)  # type: ignore[no-untyped-call]
        return dense

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.to_dense())

    def check_values(self) -> None:
        check_range("ByTask", "task", self.task, len(self.masks))
        check_range("ByTask", "begun", self.begun, len(self.masks) + 1)
