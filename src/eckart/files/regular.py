"""What is opened is a file: a pipe would be waited for, and a device never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from eckart.errors import Refused


def regular(file: Path) -> Path:
    """`file`, once it is known to be an ordinary file, or a link to one.

    Raises:
        Refused: it is something else.
        OSError: it is not there, or cannot be looked at.
    """
    mode = os.stat(file).st_mode
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise Refused(f"{file} is {what}, where a file is needed")
    return file
