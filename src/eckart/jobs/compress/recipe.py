"""What is asked for: the method, the size, and what it is calibrated with."""

from __future__ import annotations

from dataclasses import dataclass

from eckart.budget.contract import find as find_allocation
from eckart.budget.currencies import CURRENCIES
from eckart.compressors.contract import METHODS
from eckart.errors import Refused, check_types
from eckart.jobs.calibration import check_sampling


@dataclass(frozen=True)
class Recipe:
    """What is asked of a compression; it travels with the compressed model.

    Attributes:
        method: a name from `eckart methods`.
        keep: share in (0, 1] of the cost that is kept.
        of: what cost: linear-parameters, parameters, bytes or macs.
        allocation: uniform, greedy, exact, threshold or farms; None for the method's own.
        floor: least share of its dense cost that a matrix keeps.
        include: patterns of the names of matrices to take, or regular expressions behind `re:`; empty for all.
        exclude: patterns of those to leave.
        embeddings: take the embeddings too.
        head: take the output head too.
        sequential: fit block by block again, on what the compressed blocks before it hand on.
        heal: steps of training for each block, after all else; 0 for none.
        distill: steps of training for each side of the factors of a language model, end to end, at the very last; 0
            for none.
        samples: calibration sequences.
        length: tokens in a calibration sequence.
        seed: of everything random.
    """

    method: str = "kfac"
    keep: float = 0.8
    of: str = "linear-parameters"
    allocation: str | None = None
    floor: float = 0.1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    embeddings: bool = False
    head: bool = False
    sequential: bool = False
    heal: int = 0
    distill: int = 0
    samples: int = 64
    length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        METHODS.find(self.method)
        if not 0 < self.keep <= 1:
            raise Refused(f"keep={self.keep} is not a share in (0, 1]; 0.8 keeps 80 %")
        if self.of not in CURRENCIES:
            raise Refused(f"of={self.of!r} is unknown; there are {', '.join(CURRENCIES)}")
        if self.of == "linear-parameters" and (self.embeddings or self.head):
            raise Refused("embeddings and the head are not counted in linear-parameters: say of='parameters'")
        if self.allocation is not None:
            find_allocation(self.allocation)
        if not 0 <= self.floor < 1:
            raise Refused(f"floor={self.floor} is not a share in [0, 1)")
        check_sampling(self.samples, self.length, self.seed)
        if self.heal < 0:
            raise Refused(f"heal={self.heal} steps a block cannot be made; 0 is none, 20 a good start")
        if self.distill < 0:
            raise Refused(f"distill={self.distill} steps cannot be made; 0 is none, 50 a good start")


def needs_data(recipe: Recipe) -> bool:
    """Whether a recipe has to be calibrated."""
    return bool(METHODS.find(recipe.method).needs) or recipe.sequential or recipe.heal > 0 or recipe.distill > 0
