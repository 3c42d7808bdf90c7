"""Structures from what JSON says of them, held to what can be justified before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused, abridged
from eckart.structures.base import KINDS, Spec, StructuredMatrix

DEEPEST = 64
"""Structures inside each other that a spec may hold."""
MOST = 20_000
"""Structures that a spec may hold."""
_A_TENSOR = 16
"""Structures for each tensor among them."""

WIDER = 4
"""How much longer than the outer one an inner side may be."""
_LARGER = 16
"""How much larger than the whole an inner matrix may be that is written out for a product."""
_UNPACKED = 256
"""Entries that one stored number may stand for when its matrix is written out, as 1 of 256 in a semi-sparse one."""
_NEVER_FORMED = frozenset(
    [
        "block-diagonal",
        "chain",
        "circulant",
        "cosine",
        "diagonal",
        "hadamard",
        "householder",
        "identity",
        "interleaved",
        "permutation",
        "scaled",
        "selection",
        "stack",
        "toeplitz",
    ]
)
"""Kinds that are applied without writing them out, whatever is around them."""


def from_spec(spec: Spec, where: str = "spec") -> StructuredMatrix:
    """Builds the structure a spec describes on the meta device; its tensors come from `load_state_dict(assign=True)`.

    Args:
        spec: what `StructuredMatrix.spec` returned, after any trip through JSON.
        where: named in error messages, e.g. the module the spec belongs to.

    Raises:
        Refused: unknown kind, malformed entry, leaves that do not fit the stated shape, too deep a nesting, or sizes
            inside that neither the outer shape nor the tensors justify.
    """
    _check_count(spec, where)
    found = _built(spec, where)
    _check_sizes(found, where)
    return found


def _built(spec: Spec, where: str) -> StructuredMatrix:
    if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
        raise Refused(f"{where[:80]}: not a structure spec: {abridged(spec)}")
    kind = spec["kind"]
    if kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise Refused(f"{where[:80]}: unknown structure kind {abridged(kind)}; this version knows {known}")
    parts = spec.get("children", [])
    if not isinstance(parts, list):
        raise Refused(f"{where[:80]}: the children of {kind!r} are no list: {abridged(parts)}")
    children = [_built(child, f"{where}/{kind}") for child in parts]
    try:
        leaves = {name: _meta_leaf(entry) for name, entry in spec.get("leaves", {}).items()}
        build: Callable[..., StructuredMatrix] = KINDS[kind]
        node = build(*children, **leaves, **spec.get("options", {}))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        raise Refused(f"{where[:80]}: malformed {kind!r} spec: {abridged(error, 300)}") from error
    if list(node.shape) != spec.get("shape"):
        raise Refused(
            f"{where[:80]}: {kind!r} states shape {abridged(spec.get('shape'))} but its leaves make {list(node.shape)}"
        )
    own = node.leaves()
    for name, leaf in leaves.items():
        if own[name].dtype != leaf.dtype or own[name].shape != leaf.shape:
            raise Refused(f"{where[:80]}: {kind!r} states {abridged(name)} as {leaf.dtype}, which is {own[name].dtype}")
    return node


_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


def _meta_leaf(entry: list[Any]) -> Tensor:
    if not entry or not isinstance(entry, list):
        raise TypeError(f"a leaf is its dtype and its shape, got {abridged(entry)}")
    name, *shape = entry
    if name not in _DTYPES:
        raise Refused(f"dtype {abridged(name)} is not one of {', '.join(_DTYPES)}")
    if not all(type(n) is int for n in shape):
        raise TypeError(f"the shape of a leaf is integers, got {abridged(shape)}")
    return torch.empty(shape, dtype=_DTYPES[name], device="meta")


def _check_count(spec: Any, where: str) -> None:
    """Refuses a spec of more structures than anybody writes, before any is built."""
    nodes = leaves = 0
    waiting = [(spec, 1)]
    while waiting:
        part, depth = waiting.pop()
        nodes += 1
        if depth > DEEPEST:
            raise Refused(f"{where[:80]}: structures are nested more than {DEEPEST} deep; no version writes such")
        if not isinstance(part, dict):
            continue
        leaves += len(part["leaves"]) if isinstance(part.get("leaves"), dict) else 0
        if isinstance(part.get("children"), list):
            waiting += [(child, depth + 1) for child in part["children"]]
    most = min(MOST, _A_TENSOR * (leaves + _A_TENSOR))
    if nodes > most:
        raise Refused(
            f"{where[:80]}: {nodes} structures with {leaves} tensors in one matrix; no version writes more than {most}"
        )


def _check_sizes(root: StructuredMatrix, where: str) -> None:
    """Refuses a structure whose product would take memory out of all proportion to its shape and its tensors."""
    out, columns = root.shape
    entries = sum(t.numel() for t in root.state_dict().values())
    longest, largest = max(WIDER * max(out, columns), entries), _LARGER * out * columns
    for part in root.modules():
        if not isinstance(part, StructuredMatrix):
            continue
        if max(part.shape) > longest:
            raise Refused(
                f"{where[:80]}: a {part.kind!r} of shape {part.shape} inside a matrix of shape {root.shape} of "
                f"{entries} stored numbers; no version writes such"
            )
        own = sum(t.numel() for t in part.state_dict().values())
        if part.kind not in _NEVER_FORMED and part.shape[0] * part.shape[1] > max(largest, _UNPACKED * own):
            raise Refused(
                f"{where[:80]}: a {part.kind!r} of shape {part.shape} would be written out of {own} stored "
                f"numbers, inside a matrix of shape {root.shape}; no version writes such"
            )
