"""How a long job says how far it is, and how long its phases took."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol


class Progress(Protocol):
    """Told of the phases of a job: `progress(phase, done, total)`."""

    def __call__(self, phase: str, done: int, total: int) -> None: ...


def silent(phase: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def phase(progress: Progress, name: str) -> Callable[[int, int], None]:
    """What tells a `Progress` of one phase: `(done, total)`."""
    return lambda done, total: progress(name, done, total)


PATIENCE, EVERY = 0.5, 0.2
"""Seconds that a phase lasts before it is shown, and between two drawings of it."""


class _Line:
    """One line that is drawn anew while a phase lasts, and erased when it is over: in a terminal, or below a cell."""

    def __init__(self) -> None:
        self._phase, self._began, self._drawn = "", 0.0, 0.0
        self._shown = 0
        self._cell: Any = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        now, kernel = time.perf_counter(), kernel_shell()
        if kernel is None and not in_terminal():
            return
        if phase != self._phase:
            self._draw("", kernel)
            self._phase, self._began = phase, now
        if done >= total:
            self._draw("", kernel)
            self._phase = ""
        elif now - self._began >= PATIENCE and now - self._drawn >= EVERY:
            left = f", {(now - self._began) * (total - done) / done:.0f} s left" if done else ""
            self._draw(f"{phase} {done}/{total}{left}", kernel)
            self._drawn = now

    def _draw(self, text: str, kernel: Any) -> None:
        if not text and not self._shown:
            return
        if kernel is not None:
            self._below(text, kernel)
        else:
            text = text[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write(f"\r{text.ljust(self._shown)}" + "\r" * (not text))
            sys.stderr.flush()
        self._shown = len(text)

    def _below(self, text: str, kernel: Any) -> None:
        """Draws below the cell that runs; each cell has one line for all its jobs."""
        count, data = kernel.execution_count, {"text/plain": text}
        if self._cell is None or self._cell[0] != count:
            self._cell = count, import_module("IPython.display").display(data, raw=True, display_id=True)
        else:
            self._cell[1].update(data, raw=True)


def in_terminal() -> bool:
    """Whether the error stream is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def kernel_shell() -> Any:
    """The shell of a notebook's kernel, if this process is one; None else."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell if hasattr(shell, "kernel") else None


_LINE = _Line()


def shown(phase: str, done: int, total: int) -> None:
    """A `Progress` that draws where someone looks on, in a terminal or a notebook, and is silent elsewhere."""
    _LINE(phase, done, total)


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
