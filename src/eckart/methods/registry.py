"""The register of published methods, and what a method returns: candidates for a matrix, or for a group of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeGuard, TypeVar

from torch import Tensor

from eckart.heads import Heads
from eckart.mixture import Mixture
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost, StructuredMatrix


@dataclass(frozen=True)
class Fitted:
    """One candidate built.

    Attributes:
        structure: What.
        bias: (out,), added to the layer's own: `structure(x) + bias` replaces `W x`; None for none.
        error: squared error in the method's metric.
    """

    structure: StructuredMatrix
    bias: Tensor | None
    error: float


class Sized(Protocol):
    """Candidates from small to large; of matrices that are fitted together, costs and errors are sums.

    Attributes:
        sizes: what distinguishes the candidates, in ascending order of their bytes; see `SIZES`.
        errors: squared error of each in the method's metric, float64, (len(sizes),), non-increasing.
        costs: cost of each, known before it is built.
        zero_error: squared error of the zero matrix, what errors are relative to.
    """

    @property
    def sizes(self) -> Sequence[int]: ...

    @property
    def errors(self) -> Tensor: ...

    @property
    def costs(self) -> Sequence[Cost]: ...

    @property
    def zero_error(self) -> float: ...


class Family(Sized, Protocol):
    """The candidates of one method for one matrix."""

    def build(self, size: int) -> Fitted:
        """The candidate of that size, in the dtype of the weight it was fitted to."""


class JointFamily(Sized, Protocol):
    """The candidates of one method for matrices that are fitted together."""

    def build(self, size: int) -> Sequence[Fitted]:
        """The candidate of that size, one `Fitted` for each matrix; their errors sum up to that of the candidate."""


def built(family: Family | JointFamily, size: int) -> Sequence[Fitted]:
    """The candidate of that size, one `Fitted` for each matrix."""
    found = family.build(size)
    return [found] if isinstance(found, Fitted) else found


@dataclass(frozen=True)
class Members:
    """Matrices that are fitted together.

    Attributes:
        weights: of each, (out, in).
        statistics: of each.
        heads: of attention projections; None for other matrices.
        biases: of each, (out,), None where a layer has none; () stands for no bias anywhere.
        mixture: of experts, whose matrices come expert by expert; None for other matrices.
    """

    weights: tuple[Tensor, ...]
    statistics: tuple[Statistics, ...]
    heads: Heads | None = None
    biases: tuple[Tensor | None, ...] = ()
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "biases", self.biases or (None,) * len(self.weights))


class Lazy(Family, Protocol):
    """A family that fits its candidates one by one, and judges many of them by a few.

    Attributes:
        known: squared error of the sizes that were measured.
    """

    known: dict[int, float]

    def measure(self, size: int) -> None:
        """Enters the error of a size in `known`."""

    def estimates(self) -> Tensor:
        """As `errors`, from `known` alone; measures a few sizes where none is known."""


def lazy(family: Family | JointFamily) -> TypeGuard[Lazy]:
    return hasattr(family, "estimates")


def members(family: Family | JointFamily, method: Method) -> list[tuple[str, int]]:
    """Of each candidate of a family, the method it is from and its size there."""
    found: Sequence[tuple[str, int]] | None = getattr(family, "members", None)
    return list(found) if found is not None else [(method.name, size) for size in family.sizes]


SIZES = {
    "rank": "rank of the product, where the structure has one",
    "ranks": "ranks of the two channel modes of a kernel, added up",
    "bits": "bits for each stored value, where it is quantized",
    "percent": "share of the entries that are stored, in percent",
    "kept": "entries stored of every four neighbours in a row",
    "terms": "terms of the sum, or of the sum for each column",
    "blocks": "blocks on the diagonal",
    "experts": "experts that are left of a mixture",
    "candidate": "position among the candidates of several methods",
}
"""What the sizes of a method can count: the word its size is asked for by, and what a report calls it."""

Fit = Callable[[Tensor, Statistics], Family]
FitTogether = Callable[[Members], JointFamily]
F = TypeVar("F", bound=Fit)
G = TypeVar("G", bound=FitTogether)


@dataclass(frozen=True)
class Method:
    """A published method and its card.

    Attributes:
        name: what the user types.
        fit: `(weight (out, in), statistics) -> Family`.
        paper: authors, year, arXiv number.
        expression: what it makes, in the algebra.
        needs: the statistics it reads.
        size: what its sizes count, a word of `SIZES`.
        allocation: how sizes are chosen when the user does not say: a key of `budget.ALLOCATIONS`.
        predicts_loss: whether half of an error is the rise of the loss to second order, in nats a token.
        summary: first line of the function's docstring.
        together: for each kind of group that the method fits as one, how; see `eckart.models.groups.KINDS`. Matrices in
            no such group are fitted alone.
        counted: for kinds of groups whose sizes count something else than `size`, what: a word of `SIZES`.
    """

    name: str
    fit: Fit
    paper: str
    expression: str
    needs: tuple[Need, ...]
    size: str
    allocation: str
    predicts_loss: bool
    summary: str
    together: Mapping[str, FitTogether] = field(default_factory=dict)
    counted: Mapping[str, str] = field(default_factory=dict)

    def candidates(self, kind: str, members: Members) -> Family | JointFamily:
        """The family of a group of matrices of a kind; one matrix alone is of the kind "matrix"."""
        if kind == "matrix":
            return self.fit(members.weights[0], members.statistics[0])
        return self.together[kind](members)


METHODS: dict[str, Method] = {}


def compressor(
    name: str,
    *,
    paper: str,
    expression: str,
    needs: Sequence[Need] = (),
    size: str = "rank",
    allocation: str = "uniform",
    predicts_loss: bool = False,
) -> Callable[[F], F]:
    """Registers a function as a compression method. See `Method` for the arguments."""

    def register(fit: F) -> F:
        if name in METHODS:
            raise ValueError(f"method {name!r} is registered twice")
        if size not in SIZES:
            raise ValueError(f"method {name!r} counts {size!r}; sizes count one of {', '.join(SIZES)}")
        summary = (fit.__doc__ or "").strip().split("\n")[0]
        METHODS[name] = Method(name, fit, paper, expression, tuple(needs), size, allocation, predicts_loss, summary)
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
        raise ValueError(f"method {name!r} counts {size!r}; sizes count one of {', '.join(SIZES)}")

    def register(fit: G) -> G:
        card = METHODS[name]
        counted = {**card.counted, kind: size} if size else card.counted
        METHODS[name] = replace(card, together={**card.together, kind: fit}, counted=counted)
        return fit

    return register


def find(name: str) -> Method:
    """The method of that name; ValueError that lists what exists."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(sorted(METHODS))}")
    return METHODS[name]
