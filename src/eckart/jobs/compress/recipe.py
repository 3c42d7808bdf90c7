"""What is asked for: the method, the size, and what it is calibrated with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from eckart.budget.contract import find as find_allocation
from eckart.budget.currencies import CURRENCIES
from eckart.compressors.contract import METHODS, SIZES, CompressorCard
from eckart.errors import Refused, check_types
from eckart.jobs.calibration import check_sampling
from eckart.report.numbers import read_percent

KEEP = 0.8
"""The share that is kept where neither that nor a size is said."""


@dataclass(frozen=True)
class Recipe:
    """What is asked of a compression; it travels with the compressed model.

    Either a share of the whole is asked for, and the sizes of all matrices follow, or one size for every matrix.

    Attributes:
        method: a name from `eckart methods`.
        keep: share in (0, 1] of the cost that is kept, or "80%"; 0.8 where no size is said, None where one is.
        of: what cost: bytes, parameters, linear-parameters, macs, decode-time or prefill-time.
        allocation: uniform, greedy, exact, threshold, farms or influence; None for the method's own.
        floor: least share of its dense cost that a matrix keeps.
        include: patterns of the names of matrices to take, or regular expressions behind `re:`; empty for all.
        exclude: patterns of those to leave.
        embeddings: take the embeddings too, and a head that is tied to them; None where `auto` shares out bytes without
            rotate.
        head: take the output head too; None where `auto` shares out bytes and takes embeddings.
        rotate: rotate the residual stream of a language model first, which changes its matrices and not its outputs.
        sequential: fit block by block again, on what the compressed blocks before it hand on.
        heal: steps of training for each block, after all else; 0 for none.
        distill: steps of training for each side of the factors of a language model, end to end, at the very last; 0
            for none.
        samples: calibration sequences.
        length: tokens in a calibration sequence.
        seed: of everything random.
        mixed_precision: measure statistics on the model as it computes in bfloat16, which takes less time where the
            processor has units for that; sums stay in float32 and float64.
        rank, ranks, bits, percent, kept, terms, blocks, experts: the size that every matrix gets instead, in the word
            of the method's card; see `SIZES` in `eckart.compressors.contract`.
        group: inputs that share a scale, of methods that quantize; None for the method's own.
        symmetric: fixes the zero-point at the middle of the codes, so that none is stored.
    """

    method: str = "auto"
    keep: float | None = None
    of: str = "bytes"
    allocation: str | None = None
    floor: float = 0.1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    embeddings: bool | None = None
    head: bool | None = None
    rotate: bool = False
    sequential: bool = False
    heal: int = 0
    distill: int = 0
    samples: int = 64
    length: int = 256
    seed: int = 0
    mixed_precision: bool = False
    rank: int | None = None
    ranks: int | None = None
    bits: int | None = None
    percent: int | None = None
    kept: int | None = None
    terms: int | None = None
    blocks: int | None = None
    experts: int | None = None
    group: int | None = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        for name in ("keep", "floor"):
            object.__setattr__(self, name, read_percent(getattr(self, name)))
        check_types(self)
        self.card  # noqa: B018  (refuses what its method does not take)
        if self.size is not None:
            self._no_budget(*self.size)
        elif self.keep is None:
            object.__setattr__(self, "keep", KEEP)
        if self.keep is not None and not 0 < self.keep <= 1:
            raise Refused(f"keep={self.keep} is not a share in (0, 1]; 0.8 keeps 80 %")
        if self.of not in CURRENCIES:
            raise Refused(f"of={self.of!r} is unknown; there are {', '.join(CURRENCIES)}")
        if self.size is None and self.of == "linear-parameters" and (self.embeddings or self.head):
            raise Refused("embeddings and the head are not counted in linear-parameters: say of='bytes'")
        if self.allocation is not None:
            find_allocation(self.allocation)
        if not 0 <= self.floor < 1:
            raise Refused(f"floor={self.floor} is not a share in [0, 1)")
        check_sampling(self.samples, self.length, self.seed)
        if self.heal < 0:
            raise Refused(f"heal={self.heal} steps a block cannot be made; 0 is none, 20 a good start")
        if self.distill < 0:
            raise Refused(f"distill={self.distill} steps cannot be made; 0 is none, 50 a good start")

    @property
    def size(self) -> tuple[str, int] | None:
        """What is counted, a word of `SIZES`, and the size of every matrix; None where a share is asked for."""
        return next(iter(self._said.items()), None)

    @property
    def share(self) -> float:
        """The share that is kept; Refused where a size is said instead."""
        if self.keep is None:
            raise Refused("no share is kept: a size is said for every matrix")
        return self.keep

    @property
    def takes_embeddings(self) -> bool:
        """Whether embeddings are taken, and a head that is tied to them."""
        if self.embeddings is not None:
            return self.embeddings
        # A rotated head that is tied to the embedding has a matrix before it, so that neither is taken.
        return self._whole and not self.rotate

    @property
    def takes_head(self) -> bool:
        """Whether the output head is taken."""
        return self._whole and self.takes_embeddings if self.head is None else self.head

    @property
    def _whole(self) -> bool:
        """Whether all that has many bytes is taken, unless it is said otherwise."""
        return self.method == "auto" and self.of == "bytes" and self.size is None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method that are said, by name."""
        names = ["group", "symmetric", *(word for word in SIZES if word in METHODS.find(self.method).options)]
        return {name: value for name in names if (value := getattr(self, name, None)) not in (None, False)}

    @property
    def card(self) -> CompressorCard:
        """The card of the method, its fits taking the options.

        Raises:
            Refused: there is no such method, it has no such option, its sizes count something else, or what is said
                is no size.
        """
        card, said = METHODS.find(self.method), self._said
        counted = [word for word in dict.fromkeys([card.size, *card.counted.values()]) if hasattr(self, word)]
        if said and not counted:
            raise Refused(f"method {self.method!r} picks among methods and takes no {min(said)}=: say keep=, a share")
        for word, size in said.items():
            if word not in counted:
                raise Refused(
                    f"method {self.method!r} is not asked for by {word}={size} but by {' or '.join(counted)}="
                )
            if size < 1:
                raise Refused(f"{word}={size} is no size: it must be at least 1")
        if len(said) > 1:
            raise Refused(f"{' and '.join(f'{word}={size}' for word, size in said.items())} are two sizes: name one")
        if self.group is not None and self.group < 1:
            raise Refused(f"group={self.group} inputs cannot share a scale: it must be at least 1")
        return card.taking(self.options)

    @property
    def _said(self) -> dict[str, int]:
        words = [word for word in SIZES if word not in METHODS.find(self.method).options]
        return {word: size for word in words if (size := getattr(self, word, None)) is not None}

    def _no_budget(self, word: str, size: int) -> None:
        """Raises Refused where a budget is asked for beside a size."""
        defaults = {each.name: each.default for each in fields(Recipe)}
        for name in ("keep", "of", "allocation", "floor"):
            if (value := getattr(self, name)) != defaults[name]:
                raise Refused(
                    f"{name}={value!r} shares out a budget, and {word}={size} is the size of every matrix: name one"
                )


def needs_data(recipe: Recipe) -> bool:
    """Whether a recipe has to be calibrated."""
    trained = recipe.heal > 0 or recipe.distill > 0
    measured = recipe.sequential or recipe.allocation == "influence"
    return bool(METHODS.find(recipe.method).needs) or measured or trained
