"""The exponents by which the allocation `farms` shares out a budget."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eckart.diagnostics.contract import common_window
from eckart.diagnostics.farms import farms
from eckart.errors import Refused
from eckart.models.filters import filters
from eckart.models.groups import Group


def tail_exponents(groups: Sequence[Group]) -> list[float | None]:
    """For each group the mean exponent, by `farms`, of the block it is in; a group that is in no block is its own.

    A block is what shares its name up to the first number. All matrices are measured through windows of one size; None
    is for blocks of matrices that are too small for it, or that have no tail.
    """
    weights = {site.name: filters(site) for group in groups for site in group.sites}
    window = common_window(weight.shape[:2] for weight in weights.values())
    found: dict[str, list[float]] = {}
    for name, weight in weights.items():
        if window is not None:
            try:
                found.setdefault(block_of(name), []).append(farms(weight, (window, window)))
            except Refused:  # too small, or of one value: it has no say
                continue
    means = {block: sum(values) / len(values) for block, values in found.items() if values}
    return [means.get(block_of(group.name)) for group in groups]


def block_of(name: str) -> str:
    """The block that a matrix is in: its name up to the first number."""
    number = re.search(r"(?:^|\.)\d+(?=\.|$)", name)
    return name[: number.end()] if number else name
