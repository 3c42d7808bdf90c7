"""Every start of an adapter is made of numbers, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Generic, TypeVar

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.structures.base import StructuredMatrix

L = TypeVar("L")
S = TypeVar("S")
NEAR = 2.0**-8
"""Share of the largest number of a dtype from which on what is made of a matrix may lie beyond it."""
_LinAlgError: type[Exception] = getattr(torch.linalg, "LinAlgError")  # noqa: B009  (not in its stubs)


@dataclass(eq=False)
class Sound(Generic[L, S]):
    """What makes a start, held to numbers that its dtype can hold.

    Attributes:
        begin: what makes the start of a layer.
        weight: W of a layer.
        made: the structures of a start, and whether the first is taken out of W.

    Raises:
        Refused: entries of W, or of what was measured, are so large that the start overflows; and as `begin`.
    """

    begin: Callable[[L], S]
    weight: Callable[[L], Tensor]
    made: Callable[[S], tuple[list[StructuredMatrix], bool]]

    def __post_init__(self) -> None:
        update_wrapper(self, self.begin)  # name, module and text of a card are those of the paper

    def __call__(self, layer: L) -> S:
        weight = self.weight(layer)
        largest = float(weight.abs().max())
        beyond = Refused(
            f"what this adapter starts from overflows: entries of the matrix are up to {largest:.0e} in {weight.dtype} "
            "(or those of the data are too large); scale them down, or exclude the matrix"
        )
        try:
            start = self.begin(layer)
        except (_LinAlgError, OverflowError) as error:
            raise beyond from error
        parts, split = self.made(start)
        for part in parts:
            if not all(bool(torch.isfinite(leaf).all()) for leaf in part.parameters()):
                raise beyond
        if largest > NEAR * torch.finfo(weight.dtype).max:
            dense = [part.to_dense().detach() for part in parts if part.linear]
            if split:
                dense.append((weight.to(dense[0]) - dense[0]).to(weight.dtype))
            if not all(bool(torch.isfinite(each).all()) for each in dense):
                raise beyond
        return start
