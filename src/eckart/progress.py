"""How a long job says how far it is, and how long its phases took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Told of the phases of a job: `progress(phase, done, total)`."""

    def __call__(self, phase: str, done: int, total: int) -> None: ...


def silent(phase: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def phase(progress: Progress, name: str) -> Callable[[int, int], None]:
    """What tells a `Progress` of one phase: `(done, total)`."""
    return lambda done, total: progress(name, done, total)


class Laps:
    """A clock of phases: `lap(phase)` gives the phase all the time since the lap before.

    Attributes:
        seconds: by phase, in the order in which they ended first.

    >>> lap = Laps()
    >>> lap("load")
    >>> list(lap.seconds)
    ['load']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
