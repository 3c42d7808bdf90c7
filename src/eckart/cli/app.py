"""The command line's entry: runs a command, and turns what cannot be met into one line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from inspect import BoundArguments
from pathlib import Path
from typing import Any, TextIO

from eckart._version import __version__
from eckart.errors import Refused, abridged, of_memory

BROKEN_PIPE = 141
"""The status of a program that the reader of its output did not wait for: 128 and the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for a request that cannot be met, 130 after Ctrl-C."""
    try:
        status = obeyed(list(sys.argv[1:] if arguments is None else arguments))
        flush()
        return status
    except BrokenPipeError:
        discard(sys.stdout, sys.stderr)
        return BROKEN_PIPE
    except OSError as error:
        discard(sys.stdout)
        return refused(f"the output cannot be written: {error.strerror or error}")


def obeyed(tokens: list[str]) -> int:
    """Runs the command that the words of a command line name, and returns the exit status.

    Raises:
        OSError: what is printed cannot be.
    """
    if tokens == ["--version"]:
        print(f"eckart {__version__}")
        return 0
    # What reads all else takes longer to load than a version to say.
    from cyclopts import CycloptsError

    from eckart.cli.command_line import command_line, said

    if {"-q", "--quiet"} & set(tokens):
        # Libraries that draw progress bars of their own read these when they are loaded.
        os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    app = command_line()
    if not tokens:
        app.help_print([])
        return 2
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return refused(said(error))
    except Refused as error:
        return refused(error)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    return run(command, bound)


def run(command: Callable[..., Any], bound: BoundArguments) -> int:
    """Runs a command with the arguments that were parsed for it, and returns the exit status."""
    from eckart.cli.consoles import Unwritable

    asked = bound.arguments
    partial = Path(f"{asked['out']}.partial") if asked.get("out") else None
    try:
        if asked.get("resume") and partial and not partial.exists():
            note(f"there is no {partial} to go on with: starting from the beginning")
        return called(command, bound)
    except Refused as error:
        return refused(error)
    except KeyboardInterrupt:
        resumed = "resume" in bound.signature.parameters and partial is not None and partial.exists()
        note("interrupted" + "; run the same command with --resume to go on" * resumed)
        return 130
    except (BrokenPipeError, Unwritable):
        raise
    except (MemoryError, RuntimeError) as error:
        if not of_memory(error):
            raise
        said = str(error).strip().splitlines()
        return refused(
            f"the memory does not suffice ({said[0] if said else 'nothing is left'}): free some, or ask for less at a "
            f"time (fewer or shorter samples{', --memory' * ('memory' in bound.signature.parameters)})"
        )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            out, failed = str(asked.get("out") or ""), str(error.filename or "")
            ours = failed == out or failed.startswith(tuple(f"{out}{end}" for end in (".lock", ".partial", os.sep)))
            return refused(f"{abridged(out)} cannot be written: {error.strerror}" if out and ours else error)
        then = "go on with --resume" if "resume" in bound.signature.parameters else "try again"
        return refused(f"the disk is full ({error.filename or error.strerror}): free some space, then {then}")


def called(command: Callable[..., Any], bound: BoundArguments) -> int:
    """A command's exit status; what fails while an interruption is cleaned up after is the interruption.

    Raises:
        KeyboardInterrupt: the command was interrupted.
    """
    try:
        return command(*bound.args, **bound.kwargs) or 0
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from error
            cause = cause.__context__
        raise


def flush() -> None:
    """Writes what of the output is still held back.

    Raises:
        OSError: that cannot be.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def discard(*streams: TextIO | None) -> None:
    """Lets what is still written to streams go nowhere: nobody can be told that it went wrong."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        try:
            if stream is not None:
                os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):
            continue
    os.close(nowhere)


def note(what: object) -> None:
    """A line on the error stream."""
    _line("eckart:", "bold", what)


def refused(why: object) -> int:
    """Says why a request cannot be met, in one line, and returns the exit status for it."""
    _line("eckart: error:", "bold red", why)
    return 2


def _line(head: str, style: str, what: object) -> None:
    from rich.text import Text

    from eckart.cli.consoles import console

    console(stderr=True).print(Text.assemble((head, style), " ", str(what)), soft_wrap=True)
