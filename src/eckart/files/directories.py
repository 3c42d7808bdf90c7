"""Output directories that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eckart.errors import Refused
from eckart.files.lock import locked

STATE = "job.json"
"""In a partial directory that a run can go on from: what it was asked for."""


def partial_path(target: Path) -> Path:
    """Where a directory is built before it gets its name."""
    return target.with_name(target.name + ".partial")


def check_target(target: Path) -> None:
    """Raises Refused where `target` is taken, or cannot be made."""
    if not target.name:
        raise Refused(f"{str(target)!r} is no name of a new directory; name one")
    if target.is_symlink():
        raise Refused(f"{target} is a symbolic link; name the directory that it stands for")
    if target.exists() and not target.is_dir():
        raise Refused(f"{target} exists and is not a directory")
    if target.is_dir() and any(target.iterdir()):
        raise Refused(f"{target} exists and is not empty; name another directory or remove it")
    parent = next(p for p in (target.absolute().parent, *target.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise Refused(f"{target} cannot be written: no permission in {parent}")


def publish(partial: Path, target: Path) -> None:
    """Gives a finished directory its name."""
    if target.is_dir():
        target.rmdir()
    os.replace(partial, target)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` on leaving; nothing is left of it after an error.

    Raises:
        Refused: `target` is taken or cannot be made, another process makes it, or an interrupted run waits there.
    """
    check_target(target)
    with locked(target):
        partial = fresh_partial(target)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        publish(partial, target)


def fresh_partial(target: Path) -> Path:
    """An empty partial directory; what a killed process left of one goes, an interrupted run is Refused."""
    check_target(target)
    partial = partial_path(target)
    check_partial(partial)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def check_partial(partial: Path) -> None:
    """Raises Refused where an interrupted run waits in a partial directory."""
    if (partial / STATE).is_file():
        raise Refused(f"{partial} holds an interrupted run: finish it with its own command and --resume, or remove it")
