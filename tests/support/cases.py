"""Many small cases in one test: reporting a test costs more than most of them."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(**cases: Iterable[object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test for every combination of some of its arguments, one after the other.

    As `pytest.mark.parametrize` for arguments whose combinations take milliseconds. The first failure ends the test and
    names its combination; a combination that is skipped is left out. Fixtures are made once for all.
    """
    names = list(cases)
    combinations = list(itertools.product(*cases.values()))

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)

        @functools.wraps(test)
        def run(*arguments: Any, **given: Any) -> None:
            for values in combinations:
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
