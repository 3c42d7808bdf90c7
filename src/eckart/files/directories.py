"""Output directories that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from eckart.errors import Refused
from eckart.files.json import write_json
from eckart.files.lock import locked
from eckart.files.made import MARK, OUTPUT, STATE, foreign, read_state, remove_made

RESUMABLE = "resumable"
"""Whether the run that a state belongs to can be gone on with."""


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
    if not parent.is_dir():
        raise Refused(f"{target} cannot be made: {parent} is a file; name a directory that is in no file")
    if not os.access(parent, os.W_OK):
        raise Refused(f"{target} cannot be written: no permission in {parent}")


def publish(partial: Path, target: Path) -> None:
    """Gives what was built in a partial directory its name, and removes what else was in it."""
    if target.is_dir():
        target.rmdir()
    os.replace(partial / OUTPUT, target)
    remove_made(partial)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` on leaving; nothing is left of it after an error.

    Raises:
        Refused: `target` is taken or cannot be made, another process makes it, an interrupted run waits there, or
            something that eckart did not make.
    """
    check_target(target)
    with locked(target):
        output = fresh_partial(target)
        try:
            yield output
            publish(output.parent, target)
        except BaseException:
            remove_made(output.parent)
            raise


def fresh_partial(target: Path) -> Path:
    """An empty directory to fill in a partial one; what a killed process left there goes, all else is Refused."""
    check_target(target)
    partial = partial_path(target)
    check_partial(partial)
    remove_made(partial)
    try:
        return begin_partial(partial, {RESUMABLE: False})
    except BaseException:
        remove_made(partial)
        raise


def begin_partial(partial: Path, state: Mapping[str, object]) -> Path:
    """Makes a partial directory that is known to be eckart's, and returns the one in it to fill."""
    partial.mkdir(parents=True, exist_ok=True)
    write_json({"maker": MARK, **state}, partial / STATE)
    (partial / OUTPUT).mkdir(exist_ok=True)
    return partial / OUTPUT


def check_partial(partial: Path) -> None:
    """Raises Refused where a partial directory holds an interrupted run, or anything that eckart did not make."""
    state = read_state(partial) or {}
    if state.get(RESUMABLE) or "model" in state:  # versions before the mark wrote only the latter
        raise Refused(f"{partial} holds an interrupted run: finish it with its own command and --resume, or remove it")
    check_own(partial)


def check_own(partial: Path) -> None:
    """Raises Refused where a partial directory holds anything that eckart did not make, or is a link."""
    strange = foreign(partial)
    if strange is not None:
        raise Refused(
            f"{strange} is in the way: work in progress is kept in {partial}, and eckart removes nothing there that it "
            "did not make itself; move it elsewhere, or name another directory to make"
        )
