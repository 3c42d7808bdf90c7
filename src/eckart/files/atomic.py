"""Files that are the old one or the whole new one, whatever ends the process that writes them."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = re.compile(r"(?P<name>.+)\.[0-9a-f]{8}\.tmp")
"""What a file is called while it is written."""


@contextmanager
def replacing(file: Path, *, new: bool = False) -> Iterator[Path]:
    """A file beside `file` to write, new and empty, which takes its place on leaving; after an error it is gone.

    Args:
        file: replaced if it exists.
        new: whether it may not exist.

    Raises:
        OSError: it cannot be written.
        FileExistsError: it exists by now, and may not.
    """
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
    # Exclusively, so that it is nobody else's file; with the permissions of any other new file.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        if new and (file.exists() or file.is_symlink()):
            raise FileExistsError(f"{file} exists by now; name another file")
        os.replace(temporary, file)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
