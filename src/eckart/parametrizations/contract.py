"""What stands in the place of a matrix while a network trains, and what acts on it in every step. Their register."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.register import Card, Register
from eckart.structures.base import Cost, StructuredMatrix

CURRENCIES = ("parameters", "bytes", "macs")
"""What `keep` may be a share of."""


@dataclass(frozen=True)
class Layer:
    """What a parametrization knows of one matrix.

    Attributes:
        weight: W (out, in) at the start, in float32 or float64; of a convolution its flattened filters.
        patch: height and width of the patches that W meets, channel by channel; None where its inputs are no patches.
        generator: of whatever is drawn, on the CPU.
        peers: the sizes of all matrices that were asked for, see `dims`; empty where it stands alone.
    """

    weight: Tensor
    patch: tuple[int, int] | None
    generator: torch.Generator
    peers: tuple[tuple[int, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        out, columns = self.weight.shape
        return out, columns

    @property
    def dims(self) -> tuple[int, ...]:
        """(out, in), of a convolution (out, in channels, height, width)."""
        out, columns = self.shape
        if self.patch is None:
            return out, columns
        height, width = self.patch
        return out, columns // (height * width), height, width

    @property
    def variance(self) -> float:
        """The mean square of the entries of W, which what stands in its place starts from.

        Raises:
            Refused: W is zero, and a product of factors of that variance could never leave zero.
        """
        found = float(self.weight.cpu().double().square().mean())
        if found == 0:
            raise Refused("it is zero, and so would be all factors of a product, for good: initialise it first")
        return found

    def normal(self, *shape: int, variance: float) -> Tensor:
        """Normal entries of that variance, where W is and in its dtype."""
        drawn: Tensor = torch.randn(shape, generator=self.generator, dtype=torch.float64) * variance**0.5
        return self.like(drawn)

    def like(self, tensor: Tensor) -> Tensor:
        """A tensor in the dtype of W, where W is."""
        return tensor.contiguous().to(self.weight.dtype).to(self.weight.device)


Structures = Mapping[str, StructuredMatrix]
"""What trains, by the name of the matrix in whose place it stands."""


@dataclass(frozen=True)
class Step:
    """A step of the optimizer.

    Attributes:
        done: steps before this one.
        steps: how many there will be in all.
        optimizer: what takes it.
    """

    done: int
    steps: int
    optimizer: torch.optim.Optimizer

    def forget(self, leaf: Tensor, where: Tensor) -> None:
        """Sets to zero what the optimizer remembers of some entries of a leaf, number for number.

        What it remembers in another shape, such as moments in a subspace, stays.

        Args:
            leaf: one of its parameters.
            where: bool, of the leaf's shape or one that broadcasts to it.
        """
        waiting: list[object] = [self.optimizer.state.get(leaf, {})]
        while waiting:
            found = waiting.pop()
            if isinstance(found, Mapping):
                waiting += found.values()
            elif isinstance(found, Tensor) and found.shape == leaf.shape:
                found.masked_fill_(where, 0)


class Schedule:
    """What a parametrization does in every step of training; a paper overrides the hooks that it needs.

    Attributes:
        state: all that has to be kept, beside the leaves and the generator, to go on with an interrupted run.
    """

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def before_step(self, step: Step) -> None:
        """Before the model computes."""

    def after_backward(self, step: Step) -> None:
        """Once gradients are there, before the optimizer uses them."""

    def after_step(self, step: Step) -> None:
        """Once the optimizer has moved the leaves."""


Begin = Callable[..., StructuredMatrix]
"""`(layer, *, option=default, ...)` -> what stands in the place of W, of its shape and dtype."""
Plan = Callable[..., Schedule]
"""`(structures, steps, generator, *, option=default, ...)` -> what happens once a step."""
Fold = Callable[..., StructuredMatrix]
"""`(structure, *, option=default, ...)` -> what stands in its place once it is trained."""
B = TypeVar("B", bound=Begin)


@dataclass(frozen=True, kw_only=True)
class ParametrizationCard(Card):
    """A published parametrization and its card; `expression` is what stands in the place of W.

    Attributes:
        entry: `Layer` and options -> a structure, whose float leaves train; Refused for a matrix that stays dense.
        schedule: structures by name, steps in all, a generator and options -> what happens once a step; None for
            nothing.
        fold: a structure that is trained and options -> what stands in its place; None for the structure.
        limit: options at which training is that of the dense matrix, step by step; empty where there are none.
    """

    family = "parametrizations"

    entry: Begin
    schedule: Plan | None = None
    fold: Fold | None = None
    limit: Mapping[str, object] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The options, by name: what the structure, the schedule and the fold can be told."""
        found: dict[str, inspect.Parameter] = {}
        for made in (self.entry, self.schedule, self.fold):
            found |= {} if made is None else keywords(made)
        return found

    def columns(self) -> dict[str, str]:
        options = ", ".join(f"{name}={option.default!r}" for name, option in self.options.items())
        return {"what it does": self.summary, "makes": self.expression, "options": options, "paper": self.paper}


def keywords(made: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, their annotations being types."""
    parameters = inspect.signature(made, eval_str=True).parameters
    return {name: each for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}


PARAMETRIZATIONS = REGISTER = Register(ParametrizationCard, "parametrization", 'eckart.reparametrize(model, "{name}")')
"""The cards of all parametrizations, by name."""


def parametrization(
    name: str,
    *,
    paper: str,
    expression: str,
    schedule: Plan | None = None,
    fold: Fold | None = None,
    limit: Mapping[str, object] | None = None,
    unmeasured: str = "",
) -> Callable[[B], B]:
    """Registers a function as a parametrization. See `ParametrizationCard` for the arguments."""

    def register(entry: B) -> B:
        PARAMETRIZATIONS.add(
            ParametrizationCard(
                name=name,
                paper=paper,
                entry=entry,
                expression=expression,
                schedule=schedule,
                fold=fold,
                limit=limit or {},
                unmeasured=unmeasured,
            )
        )
        return entry

    return register


def check_share(name: str, value: float) -> float:
    """`value`, once it is known to lie in (0, 1]; else Refused."""
    if not 0 < value <= 1:
        raise Refused(f"{name}={value} is not in (0, 1]")
    return value


def affordable(weight: Tensor, keep: float, of: str, cost: Callable[[int], Cost], most: int) -> int:
    """The largest size whose cost is at most `keep` of that of the dense matrix.

    Args:
        weight: W, only its shape and dtype are read.
        keep: a share, in (0, 1].
        of: one of `CURRENCIES`.
        cost: what a size, 1 to `most`, costs; never less for a larger one.
        most: the largest size there is.

    Raises:
        Refused: not even size 1 costs so little.
    """
    check_share("keep", keep)
    check_currency(of)
    entries = weight.numel()
    dense = Cost(entries, entries * weight.element_size(), entries)
    limit = keep * getattr(dense, of)
    if (least := getattr(cost(1), of)) > limit:
        raise Refused(f"the smallest has {least} {of}, more than {keep:.3g} of the {getattr(dense, of)} of the matrix")
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if getattr(cost(middle), of) <= limit else (low, middle - 1)
    return low


def check_currency(of: str) -> str:
    """`of`, once it is known to be one of `CURRENCIES`; else Refused."""
    if of not in CURRENCIES:
        raise Refused(f"of={of!r} is none of {', '.join(CURRENCIES)}")
    return of
