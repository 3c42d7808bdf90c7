"""What is made of a tensor once, and again whenever that changes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Kept = tuple[Tensor, int, int, Tensor]
"""A tensor, its version and address, and what was made of it."""


def kept(source: Tensor, before: Kept | None, make: Callable[[], Tensor]) -> Kept:
    """What was made of a tensor before, or is made now, where that was another one or was written to since."""
    version = -1 if source.is_inference() else source._version
    if before is not None and before[0] is source and before[1:3] == (version, source.data_ptr()):
        return before
    return source, version, source.data_ptr(), make()
