"""How a long job says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of the phases of a job: `progress(phase, done, total)`."""

    def __call__(self, phase: str, done: int, total: int) -> None: ...


def silent(phase: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
