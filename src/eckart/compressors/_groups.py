"""What methods share that keep or drop groups of 16 inputs of a row: their order, which are kept, the surgery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from eckart.compressors._masks import largest_share, share
from eckart.compressors.sparsegpt import transfer_and_worth
from eckart.compressors.wanda import scores
from eckart.linalg.optimal_brain_surgery import sweep
from eckart.ops.packing import grouped
from eckart.structures._kept_groups import GROUP
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.permutation import Permutation


@dataclass(frozen=True, eq=False)
class SortedInputs:
    """W and C = E[x x^T] with the inputs in the order of `C_jj ||w_j||^2`, largest first.

    A group of 16 inputs is kept or dropped as a whole, so it should hold inputs that are worth about the same.

    Attributes:
        order: (in,), which input stands where.
        weight: (out, in), columns in that order, in at least float32.
        moment: (in, in), likewise, float64.
        worth: (out, groups), `sum_j W_ij^2 C_jj` over each group: what dropping it costs, inputs being uncorrelated.
    """

    order: Tensor
    weight: Tensor
    moment: Tensor
    worth: Tensor

    @classmethod
    def of(cls, weight: Tensor, moment: Tensor) -> SortedInputs:
        """Of a finite W (out, in) and its second moment; magnitudes count alone where all inputs were zero."""
        squares = scores(weight, moment).square_()
        order = squares.sum(0).argsort(descending=True, stable=True)
        exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        return cls(order, exact[:, order], moment[order][:, order], grouped(squares[:, order], GROUP).sum(-1))

    def kept(self, percent: int) -> Tensor:
        """That share of the groups of the matrix, those of largest worth: (out, groups), bool."""
        return largest_share(self.worth, percent)

    def pruned(self, kept: Tensor) -> Tensor:
        """W without the groups that are not kept, the inputs of each larger worth making up for them: (out, in).

        Optimal brain surgery from the last input to the first (`linalg.optimal_brain_surgery.sweep`): what is dropped
        at inputs that are worth little is made up for by those that are worth much, of which most is kept.
        """
        transfer, _ = transfer_and_worth(self.moment.flip(0, 1), self.weight.dtype)
        dropped = ~self.spread(kept).T.flip(0)
        rest = self.weight.T.flip(0).contiguous()

        def drop(j: int, error: Tensor) -> None:
            torch.mul(rest[j], dropped[j], out=error)

        sweep(rest, transfer, drop)
        return rest.masked_fill_(dropped, 0.0).flip(0).T

    def spread(self, kept: Tensor) -> Tensor:
        """What is kept of each entry, (out, in), bool."""
        return kept.repeat_interleave(GROUP, 1)[:, : self.weight.shape[1]]

    def chain(self, matrix: StructuredMatrix) -> Chain:
        """The matrix behind the permutation that puts its inputs into this order."""
        return Chain(matrix, Permutation(self.order))


def stored_groups(weight: Tensor, percent: int) -> int:
    """How many groups of a matrix (out, in) are stored at a percentage, exactly."""
    return share(percent, len(weight) * -(-weight.shape[1] // GROUP))


def cost_of(weight: Tensor, empty: Callable[[int], StructuredMatrix]) -> Callable[[int], Cost]:
    """The cost of a percentage: that of `empty(groups stored)` and of the order of the inputs."""
    order = Permutation(torch.empty(weight.shape[1], dtype=torch.int32, device="meta"))

    @cache
    def cost(percent: int) -> Cost:
        return Chain(empty(stored_groups(weight, percent)), order).cost()

    return cost
