"""Where the command line prints: plain where codes for a terminal would be seen as such, and cut off without a word.

Nothing that comes from a file, or from a name, tells the terminal what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from eckart.errors import readable


class Unwritable(OSError):
    """What is printed cannot be written: no file of a job is at fault, but where the output goes."""


class _Console(Console):
    """A console that raises what goes wrong where it prints, in the place of leaving the program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def print(self, *objects: Any, **how: Any) -> None:
        with _output():
            super().print(*objects, **how)

    def out(self, *objects: Any, **how: Any) -> None:
        with _output():
            super().out(*objects, **how)


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(error.errno, error.strerror) from error


def console(*, stderr: bool = False) -> Console:
    """The output, or the error stream, on which text is shown as it is, brackets and control characters too.

    A notebook gets plain text: a shell behind one of its cells has what looks like a terminal, but shows its codes.
    """
    made = _Console(
        stderr=stderr, force_jupyter=False, force_terminal=False if in_notebook() else None, markup=False, emoji=False
    )
    made.push_render_hook(_Readable())
    return made


class _Readable(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(each) for each in renderables]


class _Shown:
    """Something to print, without what a terminal would obey; rich's own codes are apart from the text."""

    def __init__(self, what: RenderableType) -> None:
        self.what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.what, options):
            yield segment if segment.control else Segment(readable(segment.text), segment.style)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, or runs behind one of its cells."""
    return "JPY_PARENT_PID" in os.environ


def is_live(stream: TextIO | None) -> bool:
    """Whether lines that were written to a stream can be drawn anew: whatever colours are asked for, no log can."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb" and not in_notebook()
    except ValueError:  # it is closed
        return False
