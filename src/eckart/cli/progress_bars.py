"""Progress bars on the error stream, and one line a phase where that is no terminal or where more is to be said."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eckart.cli.consoles import console, is_live
from eckart.cli.options import Talk


class Bars:
    """Phases of a job as progress bars with the time that remains, or as a line each when they are done."""

    def __init__(self, progress: Progress, lines: bool) -> None:
        self._progress, self._lines = progress, lines
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total)
            self._started[phase] = time.perf_counter()
        self._progress.update(self._tasks[phase], completed=done, total=total)
        if done == total and self._lines:
            self._progress.console.print(f"{phase}: {total} done in {time.perf_counter() - self._started[phase]:.1f} s")


@contextmanager
def bars(talk: Talk) -> Iterator[Bars]:
    """Bars for a job, as much of them as a command is to say."""
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    live, errors = is_live(sys.stderr), console(stderr=True)
    lines = not talk.quiet and (talk.verbose or not live)
    with Progress(*columns, console=errors, refresh_per_second=2, disable=talk.quiet or not live) as progress:
        yield Bars(progress, lines)
