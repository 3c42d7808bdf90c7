"""Progress bars on the error stream, and one line a phase where that is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


class Bars:
    """Phases of a job as progress bars with the time that remains."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total)
            self._started[phase] = time.perf_counter()
        self._progress.update(self._tasks[phase], completed=done, total=total)
        if done == total and not console.is_terminal:
            console.print(f"{phase}: {total} done in {time.perf_counter() - self._started[phase]:.1f} s")


@contextmanager
def bars() -> Iterator[Bars]:
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=2, disable=not console.is_terminal) as progress:
        yield Bars(progress)
