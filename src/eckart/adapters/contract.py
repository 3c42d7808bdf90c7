"""What an adapter starts from: a frozen matrix and a small trainable structure beside it. The register of adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from eckart.adapters._sound import Sound
from eckart.errors import Refused
from eckart.register import Card, Register
from eckart.statistics.needs import Need, Statistics, needed
from eckart.structures.base import StructuredMatrix

Paths = Mapping[str, StructuredMatrix]
"""The trainable structures of one adapter, by the name of the matrix each stands beside."""


@dataclass(frozen=True)
class Start:
    """What stands in the place of W (out, in) when training starts.

    Attributes:
        path: what is added and trained, as far as its leaves ask for gradients.
        split: whether the path, as it is now, is first taken out of W, so that the sum is W.
        frozen: what stands in W's place instead of W, where that is something else; None for W.
        rank: what the adapter made of the rank asked for, where it looks at W to choose; None for just that.
        whole: whether the path is W itself, to be evaluated instead of it.
    """

    path: StructuredMatrix
    split: bool = False
    frozen: StructuredMatrix | None = None
    rank: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Layer:
    """What an adapter knows of one matrix.

    Attributes:
        weight: W (out, in), in the dtype it is stored in; of a convolution its flattened filters.
        statistics: what the adapter asked for, and the size of the patches that a convolution meets.
        rank: how large; what it counts is on the adapter's card.
        scale: what the path is multiplied by, for adapters that are `scaled`; 1 for others.
        generator: of whatever is drawn.
        gradient: mean of dloss/dW over the data of the task, float32, for adapters that ask for it.
        structure: W as it stands in the model, which compression may have made something else than a dense matrix.
    """

    weight: Tensor
    statistics: Statistics
    rank: int
    scale: float
    generator: torch.Generator
    gradient: Tensor | None = None
    structure: StructuredMatrix | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of what trains: that of the weight, at least float32."""
        return torch.promote_types(self.weight.dtype, torch.float32)


class Schedule(Protocol):
    """What an adapter does once a step, after the optimizer's step and before gradients are set to zero."""

    state: dict[str, Tensor]
    """What has to be kept to go on with an interrupted run; may be assigned."""

    def step(self, done: int) -> None:
        """Acts once, after an optimizer's step.

        Args:
            done: optimizer steps so far, this one included.
        """


Frozen = Callable[[str], Tensor]
"""The name of a matrix -> what stands in its place without the path, (out, in)."""

Begin = Callable[[Layer], Start | None]
Filters = tuple[int, int, int, int]
"""The shape (out, channels, height, width) of a convolution's weight."""
Ranks = Callable[[Mapping[str, StructuredMatrix], Mapping[str, Statistics], int], dict[str, int]]
B = TypeVar("B", bound=Begin)


@dataclass(frozen=True, kw_only=True)
class AdapterCard(Card):
    """A published adapter and its card; `expression` is what stands in the place of W.

    Attributes:
        entry: `Layer -> Start`, or None for a matrix that stays as it is.
        parameters: `(out, in, rank)` -> numbers that train beside a matrix.
        of_filters: `(shape of the filters, rank)` -> numbers that train beside a convolution; None where that is its
            matrix.
        needs: the statistics it reads.
        task_gradient: whether it reads the mean gradient of the task's loss.
        scaled: whether the path is multiplied by alpha / rank.
        ranks: matrices, statistics and the rank asked for -> the rank of each matrix, by name, 0 for one left as it is;
            None for the same for all.
        regulariser: `paths` -> a term of the loss, a scalar; None for none.
        schedule: `(paths, optimizer steps in all, frozen)` -> what happens once a step; None for nothing.
        server: `paths` -> what a server of federated learning does to them once it has averaged what clients trained;
            None for nothing.
    """

    family = "adapters"

    entry: Begin
    parameters: Callable[[int, int, int], int]
    needs: tuple[Need, ...] = ()
    task_gradient: bool = False
    scaled: bool = False
    ranks: Ranks | None = None
    regulariser: Callable[[Paths], Tensor] | None = None
    schedule: Callable[[Paths, int, Frozen], Schedule] | None = None
    of_filters: Callable[[Filters, int], int] | None = None
    server: Callable[[Paths], None] | None = None

    @property
    def reads_data(self) -> bool:
        """Whether it is calibrated."""
        return bool(self.needs) or self.task_gradient

    def columns(self) -> dict[str, str]:
        return super().columns() | {"needs": needed(self.needs, "gradient of the loss" if self.task_gradient else "")}

    def numbers(self, shape: tuple[int, int], patch: tuple[int, int] | None, rank: int) -> int:
        """Numbers that train beside a matrix (out, in) whose inputs are patches of that height and width, if any."""
        if patch is None or self.of_filters is None:
            return self.parameters(*shape, rank)
        return self.of_filters((shape[0], shape[1] // (patch[0] * patch[1]), *patch), rank)


ADAPTERS = REGISTER = Register(AdapterCard, "adapter", "eckart.adapt, or eckart adapt --method {name}")
"""The cards of all adapters, by name."""


def _weight(layer: Layer) -> Tensor:
    return layer.weight


def _made(start: Start | None) -> tuple[list[StructuredMatrix], bool]:
    """The structures of a start, and whether the first is taken out of W."""
    if start is None:
        return [], False
    return [start.path, *([] if start.frozen is None else [start.frozen])], start.split


def adapter(
    name: str,
    *,
    paper: str,
    expression: str,
    parameters: Callable[[int, int, int], int] = lambda out, columns, rank: rank * (out + columns),
    needs: Sequence[Need] = (),
    task_gradient: bool = False,
    scaled: bool = False,
    ranks: Ranks | None = None,
    regulariser: Callable[[Paths], Tensor] | None = None,
    schedule: Callable[[Paths, int, Frozen], Schedule] | None = None,
    of_filters: Callable[[Filters, int], int] | None = None,
    server: Callable[[Paths], None] | None = None,
    unmeasured: str = "",
) -> Callable[[B], B]:
    """Registers a function as an adapter. See `AdapterCard` for the arguments."""

    def register(start: B) -> B:
        ADAPTERS.add(
            AdapterCard(
                name=name,
                entry=Sound(start, _weight, _made),
                paper=paper,
                expression=expression,
                parameters=parameters,
                needs=tuple(needs),
                task_gradient=task_gradient,
                scaled=scaled,
                ranks=ranks,
                regulariser=regulariser,
                schedule=schedule,
                of_filters=of_filters,
                server=server,
                unmeasured=unmeasured,
            )
        )
        return start

    return register


def check_rank(layer: Layer, most: int | None = None) -> int:
    """The rank asked for; Refused where it is not in 1..most, most being that of the matrix by default."""
    most = min(layer.weight.shape) if most is None else most
    if not 1 <= layer.rank <= most:
        raise Refused(
            f"rank={layer.rank} is not in 1..{most}, what a matrix {tuple(layer.weight.shape)} allows: choose another "
            "rank or exclude the matrix"
        )
    return layer.rank
