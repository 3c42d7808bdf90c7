"""Many small cases in one test: reporting a test costs more than most of them."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def in_turn(
    one: Iterable[object], other: Iterable[object], start: int = 0, count: int = 1
) -> list[tuple[object, object]]:
    """Each of `one` with so many of `other`, the next ones in turn; with all of them where ECKART_ALL_CASES=1 is set.

    For `pytest.mark.parametrize`, of arguments that do not depend on each other: each value of both is there.
    """
    values = list(other)
    if os.environ.get("ECKART_ALL_CASES"):
        count = len(values)
    return [(first, values[(start + count * i + k) % len(values)]) for i, first in enumerate(one) for k in range(count)]


def each(by_turns: int = 1, **cases: Iterable[object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test for every combination of some of its arguments, one after the other.

    As `pytest.mark.parametrize` for arguments whose combinations take milliseconds. The first failure ends the test and
    names its combination; a combination that is skipped is left out. Fixtures are made once for all.

    Args:
        by_turns: where it is above 1, one combination in so many, another one for each of the test's other arguments,
            so that all combinations run with some and all of these run with some; ECKART_ALL_CASES=1 runs all with all.
        cases: values by argument.
    """
    names = list(cases)
    turns = 1 if os.environ.get("ECKART_ALL_CASES") else by_turns
    combinations = list(itertools.product(*cases.values()))

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)

        @functools.wraps(test)
        def run(*arguments: Any, **given: Any) -> None:
            told = [value for value in (*arguments, *given.values()) if isinstance(value, str | int | float)]
            first = zlib.crc32(repr(told).encode()) % turns
            for values in combinations[first::turns]:
                case = dict(zip(names, values, strict=True))
                try:
                    test(*arguments, **given, **case)
                except pytest.skip.Exception:
                    continue
                except Exception as error:
                    told = ", ".join(f"{name}={value!r}" for name, value in case.items())
                    raise AssertionError(f"with {told}: {error}") from error

        rest = [parameter for name, parameter in signature.parameters.items() if name not in cases]
        run.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        return run

    return decorate
