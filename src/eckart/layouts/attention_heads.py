"""Heads of attention."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """How the outputs of attention projections divide into heads.

    Attributes:
        queries: number of query heads.
        keys: number of heads of keys and of values; each serves `queries / keys` query heads, in order.
        size: outputs of a head.
        rotary: outputs of a head, from its first on, that are rotated in pairs (i, i + rotary / 2); 0 for none.
    """

    queries: int
    keys: int
    size: int
    rotary: int = 0
