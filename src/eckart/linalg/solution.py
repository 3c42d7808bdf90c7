"""What an iteration gives back: its best value, and why it stopped there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Solution(Generic[T]):
    """The best iterate that was found.

    Attributes:
        value: it.
        converged: whether what was asked for was reached.
        iterations: steps that were taken.
        history: what was watched, once a step: a residual, a gap, or an error.
        message: why it stopped, a sentence.
        calls: how often the user's function was called or entries were read, where these are what costs.
        error: an estimate of the value's error, of the value's shape or a number; None where there is none.
    """

    value: T
    converged: bool
    iterations: int
    history: Sequence[float] = field(default_factory=tuple)
    message: str = ""
    calls: int = 0
    error: Any = None
