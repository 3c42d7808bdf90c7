"""Compiled products of random matrices, with tensors that lie at the very ends of the memory there is.

    python -m tests.support.fuzzed_products --seed 1 --cases 5000

Every layout and level is multiplied by and decoded, in random shapes, groups, dtypes, batches, pieces and programs.
Whoever reads or writes outside of a tensor dies of it, overwrites bytes that are looked at afterwards, or computes
something else where those bytes are others.
"""

from __future__ import annotations

import argparse
import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from eckart.ops.binary_planes import plane_bytes
from eckart.ops.native.assembly import ON_STACK, Assembled, Term, assembled
from eckart.ops.native.binary_coded import BINARY_CODED, BIT_PLANES, MOST_PAIRS
from eckart.ops.native.column_sparse import BLOCKS, COLUMN_SPARSE, FOLDED
from eckart.ops.native.combined import COMBINED
from eckart.ops.native.dense import DENSE
from eckart.ops.native.group_sparse import GROUP_SPARSE
from eckart.ops.native.layouts import FLOATS, Layout, Leaves
from eckart.ops.native.library import Library, capped, levels, loaded
from eckart.ops.native.masked import MASKED
from eckart.ops.native.quantized import QUANTIZED, ROUNDED
from eckart.ops.native.semisparse import SEMISPARSE
from eckart.ops.native.sparse import SPARSE
from eckart.ops.native.vector_quantized import LENGTHS, VECTOR_QUANTIZED
from eckart.ops.packing import pack, row_bytes
from tests.support.guarded import FILLED, Memory

DTYPES = tuple(FLOATS)
WIDTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 129, 160, 257, 300, 577)
LARGE = 2053
"""Columns from which several rows are read side by side."""


class Draws:
    """Random numbers and tensors of one seed."""

    def __init__(self, seed: int) -> None:
        self.any = random.Random(seed)
        self._tensors = torch.Generator().manual_seed(seed)

    def floats(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._tensors).to(self.any.choice(DTYPES))

    def bytes(self, *shape: int) -> Tensor:
        return torch.randint(256, shape, generator=self._tensors, dtype=torch.uint8)

    def chosen(self, *shape: int) -> Tensor:
        density = self.any.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        return torch.rand(shape, generator=self._tensors) < density

    def orders(self, count: int, size: int) -> Tensor:
        """(count, size): the numbers below `size` in an order of its own for each."""
        return torch.rand(count, size, generator=self._tensors).argsort(-1)


Made = tuple[Leaves, tuple[int, ...]]


def _dense(draw: Draws, rows: int, columns: int) -> Made:
    return [draw.floats(rows, columns)], ()


def _codes(draw: Draws, rows: int, columns: int, kinds: str) -> Made:
    bits, group = draw.any.randint(2, 8), draw.any.choice((1, 3, 5, 16, 32, 64, 100, 10000))
    kind, groups = draw.any.choice(kinds), -(-columns // group)
    zeros = draw.bytes(rows, groups) if kind == "z" else None
    book = draw.floats(draw.any.randint(1, 1 << bits)) if kind == "b" else None
    packed = draw.bytes(rows, row_bytes(groups, bits)) if kind == "p" else None
    leaves = [draw.bytes(rows, row_bytes(columns, bits)), draw.floats(rows, groups), zeros, book, packed]
    return leaves, (bits, group, columns)


def _quantized(draw: Draws, rows: int, columns: int) -> Made:
    return _codes(draw, rows, columns, "szbp")


def _quantized_rounded(draw: Draws, rows: int, columns: int) -> Made:
    leaves, options = _codes(draw, rows, columns, "szp")
    return leaves, (*options, draw.any.randint(2, 8))


def _planes(draw: Draws, rows: int, columns: int, planes: int) -> Made:
    group = draw.any.choice([columns, *(size for size in (16, 32, 48, 128) if size < columns)])
    groups = -(-columns // group)
    offsets = draw.floats(rows, groups) if draw.any.random() < 0.5 else None
    leaves = [draw.bytes(rows, planes * plane_bytes(columns)), draw.floats(rows, groups * planes), offsets]
    return leaves, (group, columns, planes)


def _binary_coded(draw: Draws, rows: int, columns: int) -> Made:
    return _planes(draw, rows, columns, draw.any.randint(1, 8))


def _bit_planes(draw: Draws, rows: int, columns: int) -> Made:
    planes = draw.any.randint(1, MOST_PAIRS)
    leaves, options = _planes(draw, rows, columns, planes)
    return leaves, (*options, draw.any.randint(1, MOST_PAIRS // planes))


def _masked(draw: Draws, rows: int, columns: int) -> Made:
    places = draw.chosen(rows, columns)
    return [draw.floats(int(places.sum())), pack(places.to(torch.uint8), 1)], (columns,)


def _sparse(draw: Draws, rows: int, columns: int) -> Made:
    places = draw.chosen(rows, columns)
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), places.sum(1).cumsum(0)))
    of_row = places.nonzero()[:, 1].to(draw.any.choice((torch.int16, torch.int32)))
    kind = draw.any.choice((torch.int32, torch.int64))
    return [draw.floats(len(of_row)), of_row, offsets.to(kind)], (columns,)


def _column_sparse(draw: Draws, rows: int, columns: int) -> Made:
    blocks = draw.any.choice([count for count in range(1, BLOCKS + 1) if rows % count == 0])
    size = rows // blocks
    stored = draw.any.randint(1, min(size, 4))
    places = draw.orders(columns, size)[:, :stored].T.contiguous()
    return [draw.floats(stored, columns), places.to(draw.any.choice((torch.int16, torch.int32)))], (size, blocks)


def _combined(draw: Draws, rows: int, columns: int) -> Made:
    return [draw.orders(1, rows)[0].to(torch.int32), draw.floats(rows - columns, columns)], ()


def _folded(draw: Draws, rows: int, columns: int) -> Made:
    return [], (rows, columns // rows)


def _group_sparse(draw: Draws, rows: int, columns: int) -> Made:
    groups = -(-columns // 16)
    kept = draw.chosen(rows, groups)
    small = (torch.uint8, torch.int16, torch.int32)
    places, counts = kept.nonzero()[:, 1].to(draw.any.choice(small)), kept.sum(1).to(draw.any.choice(small))
    if draw.any.random() < 0.5:
        return [draw.floats(len(places), 16), None, None, places, counts], (16, columns, 0)
    return [None, draw.bytes(len(places), 8), draw.floats(len(places)), places, counts], (16, columns, 4)


def _semisparse(draw: Draws, rows: int, columns: int) -> Made:
    m = draw.any.choice((4, 8, 16))
    n, groups = draw.any.choice((m // 2, draw.any.randint(1, m))), -(-columns // m)
    places = draw.orders(rows * groups, m)[:, :n].sort(-1).values.reshape(rows, groups * n)
    return [draw.floats(rows, groups * n), pack(places.to(torch.uint8), m.bit_length() - 1)], (n, m, columns)


def _vector_quantized(draw: Draws, rows: int, columns: int) -> Made:
    bits, length = draw.any.randint(2, 8), draw.any.choice(LENGTHS)
    group = draw.any.choice((1, 3, 5, 16, 32, 64, 100, 10000))
    codes, scales = draw.bytes(-(-rows // length), row_bytes(columns, bits)), draw.floats(-(-columns // group), rows)
    return [codes, scales, draw.floats(1 << bits, length)], (bits, length, group, columns)


LAYOUTS: dict[str, tuple[Layout, Callable[[Draws, int, int], Made]]] = {
    "dense": (DENSE, _dense),
    "quantized": (QUANTIZED, _quantized),
    "quantized_rounded": (ROUNDED, _quantized_rounded),
    "binary_coded": (BINARY_CODED, _binary_coded),
    "bit_planes": (BIT_PLANES, _bit_planes),
    "masked": (MASKED, _masked),
    "sparse": (SPARSE, _sparse),
    "column_sparse": (COLUMN_SPARSE, _column_sparse),
    "combined": (COMBINED, _combined),
    "folded": (FOLDED, _folded),
    "group_sparse": (GROUP_SPARSE, _group_sparse),
    "semisparse": (SEMISPARSE, _semisparse),
    "vector_quantized": (VECTOR_QUANTIZED, _vector_quantized),
}


def _shape(draw: Draws, name: str) -> tuple[int, int]:
    """Rows and columns that a layout can have."""
    columns = LARGE if draw.any.random() < 0.05 else draw.any.choice(WIDTHS)
    rows = draw.any.randint(1, 9) if columns > 300 else draw.any.randint(1, 40)
    if name == "combined":
        return (columns % 65 or 1) + draw.any.randint(1, 9), columns % 65 or 1
    return (rows, rows * draw.any.randint(1, 8)) if name == "folded" else (rows, columns)


def _term(draw: Draws, name: str, rows: int, columns: int, source: int = -1) -> Term:
    layout, make = LAYOUTS[name]
    return Term(layout, *make(draw, rows, columns), source)


def stages_of(draw: Draws, name: str) -> list[list[Term]]:
    """One matrix; or, now and then, two after one another and others beside them."""
    rows, columns = _shape(draw, name)
    first = [_term(draw, name, rows, columns)]
    if LAYOUTS[name][0].most is not None or columns == LARGE or draw.any.random() < 0.7:
        return [first]
    others = [other for other in LAYOUTS if other not in ("combined", "folded") and LAYOUTS[other][0].most is None]
    if draw.any.random() < 0.5:
        first.append(_term(draw, draw.any.choice(others), rows, columns))
    out = draw.any.randint(1, 20)
    last = [_term(draw, draw.any.choice(others), out, rows, 0)]
    if draw.any.random() < 0.5:
        last.append(_term(draw, draw.any.choice(others), out, columns))
    return [first, last]


def described(stages: list[list[Term]]) -> str:
    return "; ".join(
        " + ".join(
            f"{term.layout.name}{tuple(term.options)} of "
            + ", ".join(
                "none" if leaf is None else f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
                for leaf in term.leaves
            )
            for term in terms
        )
        for terms in stages
    )


def _damaged(draw: Draws, leaves: Leaves) -> None:
    """Random bytes in place of what the integers among the leaves were."""
    for leaf in leaves:
        if leaf is not None and leaf.numel() and not leaf.is_floating_point():
            flat = leaf.view(-1).view(torch.uint8)
            flat.copy_(draw.bytes(len(flat)))


def _moved(memory: Memory, program: Assembled, at_end: bool) -> None:
    """Moves what belongs to the descriptions of matrices to the end of memory too."""
    for held in program.held:
        for tensor in getattr(held, "tensors", ()):
            copy = memory.put(tensor, at_end)
            for field, *_ in held._fields_:  # type: ignore[attr-defined]
                if getattr(held, field) == tensor.data_ptr():
                    setattr(held, field, copy.data_ptr())


class Outside(AssertionError):
    """A product that wrote outside of its tensors, or whose outcome depends on what lies there."""


@contextmanager
def _at(level: str) -> Iterator[Library]:
    with capped(level):
        library = loaded()
        assert library is not None
        yield replace(library, threads=None)


def fuzz(seed: int, name: str, memory: Memory, say: Callable[[str], None]) -> None:
    """One random product of a layout through both doors, at all levels, at both ends of memory.

    Args:
        seed: of everything.
        name: of the layout.
        memory: whose pages the tensors meet.
        say: is told what comes next, before it does.

    Raises:
        Outside: something was written outside of a tensor, or what was computed depends on where the tensors lie.
    """
    draw = Draws(seed)
    stages = stages_of(draw, name)
    one = any(term.layout.most == 1 or term.layout.by_columns is not None for terms in stages for term in terms)
    vectors, kind = 1 if one else draw.any.randint(1, 5), draw.any.choice(DTYPES)
    damage = draw.any.choice(("", "", "damaged", "damaged later"))
    columns = stages[0][0].layout.shape(stages[0][0].leaves, stages[0][0].options)
    assert columns is not None
    x = torch.randn(vectors, columns[1], generator=torch.Generator().manual_seed(seed)).to(kind)
    bias = draw.floats(0) if draw.any.random() < 0.5 else None
    choices, damages = draw.any.random(), draw.any.random()
    case = f"seed {seed}, {vectors} vectors of {kind}: {described(stages)} {damage}".rstrip()
    seen: dict[tuple[str, str], bytes] = {}
    for at_end in (True, False):
        for level in levels():
            memory.clear()
            ran = Draws(int(choices * 2**32))
            put = [
                [t._replace(leaves=[None if u is None else memory.put(u, at_end) for u in t.leaves]) for t in terms]
                for terms in stages
            ]
            if damage == "damaged":
                _damage_all(put, damages)
            with _at(level) as library:
                found = _shape_of(put)
                added = None if bias is None else memory.put(torch.ones(found[0]).to(bias.dtype), at_end)
                program = assembled(library, put, added)
                if program is None:
                    if damage == "damaged":
                        return  # seen before C was
                    raise AssertionError(f"not assembled: {case}")
                _moved(memory, program, at_end)
                if damage == "damaged later":
                    _damage_all(put, damages)
                for piece in program.held[-2]:  # type: ignore[attr-defined]
                    piece.piece = ran.any.randint(1, piece.rows)
                where = f"at {level}, {'before' if at_end else 'behind'} the end of memory, {case}"
                say(f"multiply {where}")
                y = _multiplied(library, program, memory, memory.put(x, at_end), at_end, ran)
                _judge("multiply", where, level, y, memory, seen, finite=not damage)
                say(f"rows {where}")
                out = _decoded(library, program, put[-1][-1], memory, at_end, ran)
                _judge("rows", where, level, out, memory, seen, finite=not damage)


def _damage_all(stages: list[list[Term]], choice: float) -> None:
    draw = Draws(int(choice * 2**32))
    for terms in stages:
        for term in terms:
            _damaged(draw, term.leaves)


def _shape_of(stages: list[list[Term]]) -> tuple[int, int]:
    shape = stages[-1][0].layout.shape(stages[-1][0].leaves, stages[-1][0].options)
    assert shape is not None
    return shape


def _multiplied(library: Library, program: Assembled, memory: Memory, x: Tensor, at_end: bool, draw: Draws) -> Tensor:
    vectors = len(x)
    needed = vectors * (program.scratch + (x.dtype != torch.float32) * (program.columns + program.rows))
    y = memory.room(vectors * program.rows, x.dtype, at_end)
    stack = draw.any.random() < 0.5 and needed <= ON_STACK
    room = None if stack else memory.room(needed, torch.float32, at_end).data_ptr()
    library.multiply(None, library.number, program.address, vectors, x.data_ptr(), y.data_ptr(), FLOATS[x.dtype], room)
    return y


def _decoded(library: Library, program: Assembled, term: Term, memory: Memory, at_end: bool, draw: Draws) -> Tensor:
    shape = term.layout.shape(term.leaves, term.options)
    assert shape is not None
    rows, columns = (shape[1], term.options[0]) if term.layout.by_columns else shape
    start = draw.any.randrange(rows)
    stop, narrow = draw.any.randint(start + 1, rows), draw.any.random() < 0.5
    out = memory.room((stop - start) * columns, torch.bfloat16 if narrow else torch.float32, at_end)
    number = library.layouts[term.layout.name]
    library.rows(None, 1, library.number, number, program.matrix, columns, start, stop, narrow, out.data_ptr())
    return out


def _judge(
    door: str, where: str, level: str, out: Tensor, memory: Memory, seen: dict[tuple[str, str], bytes], finite: bool
) -> None:
    if not memory.untouched():
        raise Outside(f"{door} wrote outside of its tensors {where}")
    if finite and bool(out.isnan().any()):
        raise Outside(f"{door} left numbers unwritten or read bytes of {FILLED} around its tensors {where}")
    raw = bytes(out.view(torch.uint8).numpy())
    if seen.setdefault((door, level), raw) != raw:
        raise Outside(f"{door} computed something else than where its tensors end with memory {where}")


def fuzz_all(seed: int, cases: int, say: Callable[[str], None], size: int = 1 << 17) -> None:
    """`cases` random products of every layout.

    Args:
        seed: of the first.
        cases: of each layout.
        say: is told what comes next, before it does.
        size: bytes of the largest tensor.

    Raises:
        Outside: one of them left its tensors.
    """
    memory = Memory(40, size)
    for case in range(cases):
        for place, name in enumerate(LAYOUTS):
            fuzz(seed * 1_000_003 + case * len(LAYOUTS) + place, name, memory, say)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000, help="of each layout")
    given = parser.parse_args()
    last = ctypes.create_string_buffer(1 << 14)

    def say(what: str) -> None:
        last.value = what.encode()

    torch.set_num_threads(1)
    try:
        fuzz_all(given.seed, given.cases, say)
    except BaseException:
        print(last.value.decode())
        raise
    print(f"{given.cases} cases of each of {len(LAYOUTS)} layouts at {', '.join(levels())}: none left its tensors")


if __name__ == "__main__":
    main()
