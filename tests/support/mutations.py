"""Damage to saved models and adapters, drawn at random: bytes of a file, or values of its JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 64, 2**31, 2**63, 10**40, 0.5, -1e300, float("inf"), float("nan")),
    *("", "x", "dense", "F16", "float16", "int8", "../x", "\x1b[2J", "9" * 5000, [], [[]], {}, {"kind": "dense"}),
]
"""Values that a field of JSON does not have as a rule."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values in JSON."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> Any:
    """JSON of which one value is another, gone, or twice there."""
    changed = copy.deepcopy(value)
    *way, last = draw(st.sampled_from(sorted(places(value), key=str)))
    holder = changed
    for key in way:
        holder = holder[key]
    old = holder[last]
    kind = draw(st.sampled_from(["strange", "near", "gone", "renamed"]))
    if kind == "gone":
        del holder[last]
    elif kind == "renamed" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["x", f"{last}x", "kind", "leaves"]))] = holder.pop(last)
    elif kind == "near" and isinstance(old, int | float):
        holder[last] = (not old) if isinstance(old, bool) else old + draw(st.sampled_from([-1, 1, 0.5]))
    elif kind == "near" and isinstance(old, list | str) and old:
        holder[last] = old[:-1] if draw(st.booleans()) else old + old[:1]
    else:
        holder[last] = draw(st.sampled_from(STRANGE))
    return changed


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some are others, gone, or more; the first ones, which say what the rest is, more often."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.booleans())
        at = draw(st.integers(0, min(len(changed), 600 if near else len(changed)) - 1))
        kind = draw(st.sampled_from(["flip", "set", "cut", "more"]))
        if kind == "flip":
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            changed[at] = draw(st.integers(0, 255))
        elif kind == "cut" and len(changed) > 8:
            del changed[-draw(st.integers(1, 8)) :]
        else:
            changed += draw(st.binary(min_size=1, max_size=8))
    return bytes(changed)


def write(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value))
