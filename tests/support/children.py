"""Work in a process of its own, which may die of it."""

from __future__ import annotations

import faulthandler
import mmap
import os
import traceback
from collections.abc import Callable

import torch


def in_child(work: Callable[[Callable[[str], None]], None]) -> tuple[int, str]:
    """Runs `work` in a process of its own, which may die of it.

    Returns:
        How it ended, 0 where it did well, a signal where it touched what must not be touched; and what it said last.
    """
    said = mmap.mmap(-1, 1 << 14)

    def say(what: str) -> None:
        said[: len(said)] = what.encode()[: len(said)].ljust(len(said), b"\0")

    child = os.fork()
    if not child:
        status = 1
        try:
            faulthandler.disable()  # whoever waits says what happened
            torch.set_num_threads(1)
            work(say)
            status = 0
        except BaseException:  # noqa: BLE001
            say(traceback.format_exc()[-len(said) :])
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said[:].rstrip(b"\0").decode(errors="replace")
