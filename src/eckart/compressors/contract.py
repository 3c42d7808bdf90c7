"""What a compressor returns: candidates for a matrix, or for a group of them. The register of compressors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from eckart.compressors._at_scale import AtScale, Fit
from eckart.compressors._candidates import Family as Family
from eckart.compressors._candidates import Fitted as Fitted
from eckart.compressors._candidates import JointFamily as JointFamily
from eckart.compressors._candidates import Lazy as Lazy
from eckart.compressors._candidates import Sized as Sized
from eckart.compressors._candidates import built as built
from eckart.compressors._candidates import lazy as lazy
from eckart.errors import Refused
from eckart.layouts.attention_heads import Heads
from eckart.layouts.experts import Mixture
from eckart.metrics import Metric
from eckart.register import Card, Register
from eckart.statistics.needs import Need, Statistics, needed


@dataclass(frozen=True)
class Members:
    """Matrices that are fitted together.

    Attributes:
        weights: of each, (out, in).
        statistics: of each.
        heads: of attention projections; None for other matrices.
        biases: of each, (out,), None where a layer has none; () stands for no bias anywhere.
        mixture: of experts, whose matrices come expert by expert; None for other matrices.
        layers: how many layers they are of, whose matrices come layer by layer.
    """

    weights: tuple[Tensor, ...]
    statistics: tuple[Statistics, ...]
    heads: Heads | None = None
    biases: tuple[Tensor | None, ...] = ()
    mixture: Mixture | None = None
    layers: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "biases", self.biases or (None,) * len(self.weights))

    def by_layer(self) -> list[Members]:
        """The matrices of each layer."""
        roles = len(self.weights) // self.layers
        parts = [slice(first, first + roles) for first in range(0, len(self.weights), roles)]
        return [
            replace(self, weights=self.weights[p], statistics=self.statistics[p], biases=self.biases[p], layers=1)
            for p in parts
        ]


def members(family: Family | JointFamily, method: CompressorCard) -> list[tuple[str, int]]:
    """The method that each candidate of a family is from, and its size there."""
    found: Sequence[tuple[str, int]] | None = getattr(family, "members", None)
    return list(found) if found is not None else [(method.name, size) for size in family.sizes]


SIZES = {
    "rank": "rank of the product, where the structure has one",
    "ranks": "ranks of the two channel modes of filters, added up",
    "bits": "bits for each stored value, where it is quantized",
    "percent": "share of the entries that are stored, in percent",
    "kept": "entries stored of every four neighbours in a row",
    "terms": "terms of the sum, or of the sum for each column",
    "blocks": "blocks on the diagonal",
    "experts": "experts that are left of a mixture",
    "candidate": "position among the candidates of several methods",
}
"""What the sizes of a method can count: the word its size is asked for by, and what a report calls it."""

FitTogether = Callable[[Members], JointFamily]
F = TypeVar("F", bound=Fit)
G = TypeVar("G", bound=FitTogether)


@dataclass(frozen=True, kw_only=True)
class CompressorCard(Card):
    """A published compressor and its card.

    Attributes:
        entry: `(weight (out, in), statistics) -> Family`, whatever the size of their entries; see `AtScale`.
        needs: the statistics it reads.
        size: what its sizes count, a word of `SIZES`.
        allocation: how sizes are chosen when the user does not say: a name in `eckart.budget.ALLOCATIONS`.
        in_metric: `(weight, metric) -> Family` in a metric of the caller's; None for one that makes its own.
        predicts_loss: whether half of an error is the rise of the loss to second order, in nats a token.
        negligible: squared error of all matrices together that nothing is spent to avoid, where it is a divergence.
        together: for each kind of group that the compressor fits as one, how; see `eckart.models.groups.KINDS`.
            Matrices in no such group are fitted alone.
        counted: for kinds of groups whose sizes count something else than `size`, what: a word of `SIZES`.
    """

    family = "compressors"

    entry: Fit
    needs: tuple[Need, ...] = ()
    size: str = "rank"
    allocation: str = "uniform"
    in_metric: Callable[[Tensor, Metric], Family] | None = None
    predicts_loss: bool = False
    negligible: float = 0.0
    together: dict[str, FitTogether] = field(default_factory=dict)
    counted: dict[str, str] = field(default_factory=dict)

    def columns(self) -> dict[str, str]:
        return super().columns() | {"needs": needed(self.needs)}

    @property
    def options(self) -> tuple[str, ...]:
        """Names of what the fit of a matrix takes beside it: the keyword arguments of the paper's function."""
        parameters = inspect.signature(self.entry).parameters.values()
        return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)

    def taking(self, options: Mapping[str, Any]) -> CompressorCard:
        """The card with values for some of its options; Refused for others."""
        for name, value in options.items():
            if name not in self.options:
                has = f"its options are {', '.join(self.options)}" if self.options else "it has no options"
                takers = ", ".join(other.name for other in METHODS.values() if name in other.options)
                raise Refused(f"method {self.name!r} takes no {name}={value!r}: {has}; {takers} take it")
        if not options or not isinstance(self.entry, AtScale):
            return self
        return replace(self, entry=AtScale(partial(self.entry.fit, **options), self.needs))

    def candidates(self, kind: str, members: Members) -> Family | JointFamily:
        """The family of a group of matrices of a kind; one matrix alone is of the kind "matrix"."""
        if kind == "matrix":
            return self.entry(members.weights[0], members.statistics[0])
        return self.together[kind](members)


METHODS = REGISTER = Register(CompressorCard, "compressor", "eckart.compress, or eckart compress --method {name}")
"""The cards of all compressors, by name."""


def compressor(
    name: str,
    *,
    paper: str,
    expression: str,
    needs: Sequence[Need] = (),
    size: str = "rank",
    allocation: str = "uniform",
    in_metric: Callable[[Tensor, Metric], Family] | None = None,
    predicts_loss: bool = False,
    negligible: float = 0.0,
    unmeasured: str = "",
) -> Callable[[F], F]:
    """Registers a function as a compressor. See `CompressorCard` for the arguments."""

    def register(fit: F) -> F:
        if size not in SIZES:
            raise Refused(f"method {name!r} counts {size!r}; sizes count one of {', '.join(SIZES)}")
        METHODS.add(
            CompressorCard(
                name=name,
                entry=AtScale(fit, tuple(needs)),
                paper=paper,
                expression=expression,
                needs=tuple(needs),
                size=size,
                allocation=allocation,
                in_metric=in_metric,
                predicts_loss=predicts_loss,
                negligible=negligible,
                unmeasured=unmeasured,
            )
        )
        return fit

    return register


def together(name: str, kind: str, *, size: str | None = None) -> Callable[[G], G]:
    """Registers a function `Members -> JointFamily` as what a method does to groups of a kind.

    Args:
        name: of the method.
        kind: of the groups; see `eckart.models.groups.KINDS`.
        size: what the sizes of the family count, a word of `SIZES`, where that is not what the method's others count.
    """
    if size is not None and size not in SIZES:
        raise Refused(f"method {name!r} counts {size!r}; sizes count one of {', '.join(SIZES)}")

    def register(fit: G) -> G:
        card = METHODS[name]
        card.together[kind] = fit
        if size:
            card.counted[kind] = size
        return fit

    return register
