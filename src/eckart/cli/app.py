"""The command line's entry: runs a command, and turns what cannot be met into one line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from inspect import BoundArguments
from pathlib import Path
from typing import Any

from eckart._version import __version__
from eckart.errors import Refused


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for a request that cannot be met, 130 after Ctrl-C."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
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
    asked = bound.arguments
    partial = Path(f"{asked['out']}.partial") if asked.get("out") else None
    try:
        if asked.get("resume") and partial and not partial.exists():
            note(f"there is no {partial} to go on with: starting from the beginning")
        return command(*bound.args, **bound.kwargs) or 0
    except Refused as error:
        return refused(error)
    except KeyboardInterrupt:
        resumed = "resume" in bound.signature.parameters and partial is not None and partial.exists()
        note("interrupted" + "; run the same command with --resume to go on" * resumed)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return refused(error)
        then = "go on with --resume" if "resume" in bound.signature.parameters else "try again"
        return refused(f"the disk is full ({error.filename or error.strerror}): free some space, then {then}")


def note(what: object) -> None:
    """A line on the error stream."""
    _line("[bold]eckart:[/]", what)


def refused(why: object) -> int:
    """Says why a request cannot be met, in one line, and returns the exit status for it."""
    _line("[bold red]eckart: error:[/]", why)
    return 2


def _line(head: str, what: object) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"{head} {escape(str(what))}", highlight=False, soft_wrap=True)
