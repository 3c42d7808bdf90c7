"""How many numbers an adapter trains beside each matrix."""

from __future__ import annotations

from collections.abc import Mapping

from eckart.adapters.contract import AdapterCard
from eckart.errors import Refused
from eckart.statistics import Statistics
from eckart.structures import StructuredMatrix


def shared_out(
    card: AdapterCard,
    matrices: dict[str, StructuredMatrix],
    statistics: dict[str, Statistics],
    rank: int,
    parameters: int | None,
) -> tuple[int, dict[str, int]]:
    """The mean rank and the rank of each matrix, the mean lowered until larger matrices' ranks fit the parameters."""
    assert card.ranks is not None
    ranks = card.ranks(matrices, statistics, rank)

    def total() -> int:
        return sum(card.numbers(matrices[n].shape, statistics[n].patch, each) for n, each in ranks.items() if each)

    while parameters is not None and total() > parameters:
        if rank == 1:
            raise Refused(f"parameters={parameters} is less than the {total()} that {card.name} trains at rank 1")
        rank -= 1
        ranks = card.ranks(matrices, statistics, rank)
    return rank, ranks


def rank_within(
    card: AdapterCard,
    shapes: Mapping[str, tuple[int, int]],
    patches: Mapping[str, tuple[int, int] | None],
    parameters: int,
) -> int:
    """The largest rank with at most so many trainable numbers; Refused where rank 1 has more."""

    def total(rank: int) -> int:
        return sum(card.numbers(shape, patches[where], min(rank, *shape)) for where, shape in shapes.items())

    low, high = 0, max(min(shape) for shape in shapes.values())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total(middle) <= parameters else (low, middle - 1)
    if low == 0:
        raise Refused(f"parameters={parameters} is less than the {total(1)} that {card.name} trains at rank 1")
    return low
