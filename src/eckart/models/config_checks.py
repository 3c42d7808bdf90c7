"""What a configuration asks for, held to the files beside it before a model is laid out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eckart.errors import Refused, abridged
from eckart.files.headers import Entry

_COUNT = re.compile(r"(num|n)_\w*(layers?|blocks?|experts|heads?)|(encoder|decoder)_(layers|attention_heads)|depth")
_SIZE = re.compile(r"\w*_(size|dim)|d_(model|ff|kv)|n_(embd|inner)")
_FEW, _SMALL = 1000, 1 << 20
"""What any model may have, as some layers have no tensor of their own, and some sizes none."""


def check_config(config: Mapping[str, Any], entries: Mapping[str, Entry], file: Path) -> None:
    """Raises Refused where a configuration asks for more than its weights can fill, or for code of the hub.

    Args:
        config: from JSON.
        entries: the tensors beside it: there is one at least for each layer, and none of its sides exceeds all of one.
        file: where it stands, for messages.
    """
    largest = max((math.prod(entry.shape) for entry in entries.values()), default=0)
    check_kernels(config, file)
    for key, value in _values(config):
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if _COUNT.fullmatch(key) and value > max(_FEW, len(entries)):
            raise Refused(f"{file} says {key}={abridged(value)}, and there are {len(entries)} tensors beside it")
        if _SIZE.fullmatch(key) and value > max(_SMALL, largest):
            raise Refused(
                f"{file} says {key}={abridged(value)}, and the largest tensor beside it has {largest} entries"
            )


def check_kernels(config: Mapping[str, Any], file: Path) -> None:
    """Raises Refused where a configuration asks for code of the hub."""
    for key, value in _values(config):
        if isinstance(value, str) and key.endswith("attn_implementation") and "/" in value:
            raise Refused(
                f"{file} names an attention kernel of the hub, {abridged(value)}: code that comes with a model is not "
                f"run; take {key} out of it"
            )


def _values(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names and values of a configuration and of those in it."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            implementation = key if key.endswith("attn_implementation") else ""
            waiting += [(implementation or str(name), part) for name, part in value.items() if name != "modules"]
        elif isinstance(value, list):
            waiting += [(key, part) for part in value]
        else:
            yield key, value
