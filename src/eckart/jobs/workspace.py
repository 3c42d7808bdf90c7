"""Where a job makes its directory: locked, in progress beside its place, and there at once when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from eckart.errors import Refused
from eckart.files.directories import (
    RESUMABLE,
    begin_partial,
    check_own,
    check_partial,
    check_target,
    fresh_partial,
    partial_path,
    publish,
)
from eckart.files.lock import locked
from eckart.files.made import FINISHED, MARK, read_state, remove_made
from eckart.progress import Laps

FORMAT = 4
"""Of the state that an interrupted run leaves; those of another format cannot be gone on with."""

INPUT = "input: "
"""Before the names of fingerprints, where they stand beside options."""


class Workspace:
    """The directory that a job was asked for, while it is made.

    Attributes:
        target: its place.
        partial: where it is built until then.
        finished: directory of parts that a resumed run finds again.
        lap: the clock of the job.
    """

    def __init__(self, target: Path, request: Mapping[str, object] | None, resume: bool) -> None:
        self.target = target
        self.partial = partial_path(target)
        self.finished = self.partial / FINISHED
        self.lap = Laps()
        self._request = request
        self._resume = resume
        self._begun = False

    def begin(self, inputs: Mapping[str, str] | None = None) -> Path:
        """Makes the directory to fill, empty, keeping what an earlier run finished beside it, and returns it.

        Args:
            inputs: fingerprints of all that the job starts from, by what it is, for jobs that can be resumed.

        Raises:
            Refused: the run that is resumed started from something else.
        """
        if self._request is None:
            output = fresh_partial(self.target)
            self._begun = True
            return output
        request = {**self._request, "inputs": inputs or {}}
        check_resume(self.partial, request, self._resume)
        self._begun = True
        remove_made(self.partial, keep_finished=True)
        output = begin_partial(self.partial, {RESUMABLE: True, "format": FORMAT, **request})
        self.finished.mkdir(exist_ok=True)
        return output

    def publish(self) -> None:
        """Gives the directory its place, if it was begun, without what only a resumed run would have read."""
        if self._begun:
            publish(self.partial, self.target)

    def leave(self, error: BaseException) -> None:
        """After an error: keeps what a resumed run can go on from, and nothing else."""
        idle = not (self.finished.is_dir() and any(self.finished.iterdir()))
        if self._begun and (self._request is None or (isinstance(error, Refused) and idle)):
            remove_made(self.partial)


@contextmanager
def workspace(
    out: str | Path, request: Mapping[str, object] | None = None, resume: bool = False
) -> Iterator[Workspace]:
    """Locks the directory that a job is asked for, and gives it its place on leaving, if it was begun and is whole.

    Args:
        out: the directory to make; it appears whole or not at all.
        request: what is asked for, as JSON, by which a later run is known to be the same; None for a job that cannot
            be resumed, of which nothing is left after an error.
        resume: go on with the work that an interrupted run left.

    Raises:
        Refused: the directory is taken or cannot be made, another process is at it, or the interrupted run that is
            in the way was asked for something else.
    """
    target = Path(out)
    check_target(target)
    with locked(target):
        check_target(target)  # another process may have made it before its lock was free
        work = Workspace(target, request, resume)
        if request is not None:
            check_resume(work.partial, request, resume)
        else:
            check_partial(work.partial)
        try:
            yield work
        except BaseException as error:
            work.leave(error)
            raise
        work.publish()


def check_resume(partial: Path, request: Mapping[str, object], resume: bool) -> None:
    """Raises Refused where an interrupted run is in the way, or was another one than is to be resumed.

    Args:
        partial: where the work in progress is.
        request: what is asked for, as JSON; `inputs` has the fingerprints of what the job starts from, once known.
        resume: whether to go on with it.
    """
    state = read_state(partial) or {}
    if "model" in state and (state.get("maker"), state.get("format")) != (MARK, FORMAT):
        raise Refused(
            f"{partial} holds a run in which another version of eckart was interrupted, and this one cannot go on with "
            "it: remove it to start again"
        )
    check_own(partial)
    if not state.get(RESUMABLE):
        return
    if not resume:
        raise Refused(f"{partial} holds an interrupted run: go on with --resume, or remove it to start again")
    earlier, current = _flat(state), _flat(json.loads(json.dumps(request)))
    for part, wanted in current.items():
        if earlier.get(part) == wanted:
            continue
        if part.startswith(INPUT):
            raise Refused(
                f"the {part.removeprefix(INPUT)} changed since the run in {partial} was interrupted: "
                "remove it to start again"
            )
        raise Refused(
            f"the run in {partial} was for {part}={earlier.get(part)!r}, not {part}={wanted!r}: "
            "repeat its options, or remove it to start again"
        )


def _flat(request: Mapping[str, object]) -> dict[str, object]:
    """The entries of a request and of the mappings in it, inputs under names that no option has."""
    flat: dict[str, object] = {}
    for name, value in request.items():
        if not isinstance(value, Mapping):
            flat[name] = value
        else:
            flat |= {f"{INPUT}{key}": each for key, each in value.items()} if name == "inputs" else value
    return flat
