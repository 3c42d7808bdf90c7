"""`eckart verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from eckart.cli.options import Json, Talk, Written
from eckart.cli.results import show

if TYPE_CHECKING:
    from eckart.jobs.verify import Verified


def verify(directory: Written, /, *, json: Json = False) -> int:
    """Holds every tensor of a directory to the checksum that it was written with."""
    from eckart.jobs.verify import verify as verified

    found = verified(directory)
    show(Talk(json=json), asdict(found), [], found.problems or _good(found))
    return 1 if found.problems else 0


def _good(found: Verified) -> list[str]:
    """What was verified, a line each."""
    lines = []
    if found.tensors or not found.unsealed:
        lines.append(f"{found.directory}: {found.tensors} tensors verified")
    if found.unsealed:
        lines.append(
            f"{found.directory}: {found.unsealed} tensors were written without checksums; their names, dtypes, shapes "
            "and indices are right"
        )
    return [*lines, *(f"{found.directory}/{name} can be read" for name in found.reports)]
