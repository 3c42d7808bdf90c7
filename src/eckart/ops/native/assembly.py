"""Products as C runs them: stages one after another, each a sum of products by matrices; see `programs.h`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, lies
from eckart.ops.native.library import Library

GRAIN = 1 << 17
"""Entries of W that are worth a thread."""
PIECE, PIECES = 1 << 14, 64
"""Entries of W that a thread takes at once, more where a stage had more pieces than that."""
MOST_STAGES, ON_STACK = 8, 1 << 12
"""As in `programs.h`."""


class Term(NamedTuple):
    """One matrix of a stage.

    Attributes:
        layout: of the matrix.
        leaves: its tensors.
        options: the numbers that belong to them.
        source: the stage whose outcome it multiplies; -1 for the input.
    """

    layout: Layout
    leaves: Leaves
    options: Options
    source: int = -1


Stages = Sequence[Sequence[Term]]
"""The terms of each stage, all of as many rows; the last stage gives the product."""


class Assembled(NamedTuple):
    """A program in memory.

    Attributes:
        address: of it.
        rows: of the product.
        columns: of the input.
        widest: columns of the widest matrix.
        scratch: numbers of one vector that C needs room for.
        matrix: the address of the last matrix.
        held: what lives as long as the program does.
    """

    address: int
    rows: int
    columns: int
    widest: int
    scratch: int
    matrix: int
    held: tuple[object, ...]


class _Term(ctypes.Structure):
    _fields_ = (
        ("matrix", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
        ("reads", ctypes.c_int64),
        ("room", ctypes.c_int64),
        ("layout", ctypes.c_int32),
    )


class _Stage(ctypes.Structure):
    _fields_ = (
        ("terms", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("writes", ctypes.c_int64),
        ("piece", ctypes.c_int64),
        ("count", ctypes.c_int32),
    )


class _Program(ctypes.Structure):
    _fields_ = (
        ("stages", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
        ("scratch", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("count", ctypes.c_int32),
        ("bias_type", ctypes.c_int32),
    )


def assembled(library: Library, stages: Stages, bias: Tensor | None = None) -> Assembled | None:
    """A program in memory, once all that C will see was checked; None where it may not see it.

    Args:
        library: the compiled library.
        stages: what it is made of.
        bias: (rows,), added to the product.
    """
    shapes = [[_shape(library, term) for term in terms] for terms in stages]
    sizes = [[shape for shape in each if shape is not None] for each in shapes]
    if len(stages) > MOST_STAGES or [len(each) for each in sizes] != [len(terms) for terms in stages]:
        return None
    rows, columns = [each[0][0] for each in sizes], sizes[0][0][1]
    if bias is not None and (not lies(bias, tuple(FLOATS), rows[-1]) or bias.is_neg()):
        return None
    places = [sum(rows[:stage]) for stage in range(len(stages))]
    room = places[-1]
    held: list[object] = []
    made = (_Stage * len(stages))()
    for number, (terms, found) in enumerate(zip(stages, sizes, strict=True)):
        of_stage = (_Term * len(terms))()
        for k, (term, (height, width)) in enumerate(zip(terms, found, strict=True)):
            read = columns if term.source < 0 else rows[term.source]
            if height != rows[number] or width != read or term.source >= number:
                return None
            matrix = term.layout.describe(term.leaves, term.options)
            held.append(matrix)
            of_stage[k] = _Term(
                ctypes.addressof(matrix),
                width,
                -1 if term.source < 0 else places[term.source],
                room if k else 0,
                library.layouts[term.layout.name],
            )
            room += rows[number] if k else 0
        held.append(of_stage)
        entries = sum(width for _, width in found)
        pieces = min(*(term.layout.pieces for term in terms), PIECES)
        piece = max(1, PIECE // entries, -(-rows[number] // pieces))
        made[number] = _Stage(ctypes.addressof(of_stage), rows[number], places[number], piece, len(terms))
    # Not more than what is stored is worth; what is stored in bytes may be four entries each.
    stored = [[sum(t.numel() for t in term.leaves if t is not None) for term in terms] for terms in stages]
    entries = sum(
        min(height * width, 4 * count)
        for each, counts in zip(sizes, stored, strict=True)
        for (height, width), count in zip(each, counts, strict=True)
    )
    program = _Program(
        ctypes.addressof(made),
        None if bias is None else bias.data_ptr(),
        columns,
        room,
        1 + entries // GRAIN,
        len(stages),
        0 if bias is None else FLOATS[bias.dtype],
    )
    held += [made, program]
    widest = max(width for each in sizes for _, width in each)
    return Assembled(ctypes.addressof(program), rows[-1], columns, widest, room, ctypes.addressof(matrix), tuple(held))


def _shape(library: Library, term: Term) -> tuple[int, int] | None:
    """Rows and columns of a matrix that C may see."""
    if term.layout.name not in library.layouts:  # the library is older than the layout
        return None
    if any(leaf is not None and leaf.is_neg() for leaf in term.leaves):
        return None  # its bytes are those of something else
    shape, sound = term.layout.shape(term.leaves, term.options), term.layout.sound
    return None if shape is None or (sound is not None and not sound(term.leaves, term.options)) else shape
