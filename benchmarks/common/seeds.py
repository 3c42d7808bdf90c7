"""Measurements over seeds as one row each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

Found = tuple[dict[str, Any], dict[str, Any]]


def medians(found: Iterable[Found]) -> Iterator[Found]:
    """For all that differ in their `seed` only, `seeds`, how many there were, and the median of each number.

    What comes is printed as it comes, since the medians come at the end.
    """
    groups: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for what, numbers in found:
        print(what, numbers, flush=True)
        rest = {name: value for name, value in what.items() if name != "seed"}
        groups.setdefault(repr(rest), (rest, []))[1].append(numbers)
    for rest, each in groups.values():
        names = dict.fromkeys(name for numbers in each for name in numbers)
        values = {name: median(numbers[name] for numbers in each if name in numbers) for name in names}
        yield rest | {"seeds": len(each)}, values
