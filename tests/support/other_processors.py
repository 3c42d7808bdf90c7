"""The compiled products on processors that this machine does not have: random ones are recorded here and run there.

    python -m tests.support.other_processors --run qemu-aarch64-static [--cases 40]
    python -m tests.support.other_processors --compile

The first compiles a program for arm64 Linux and runs it in an emulator: every layout through both doors, in random
shapes, groups, dtypes, batches and programs, bit for bit what this machine computes where it has fused multiply-adds,
and no byte read or written behind a tensor. The second compiles the library for the other systems that `build` knows
the compiler's names of, and runs nothing. Both need the package `ziglang`.
"""

from __future__ import annotations

import argparse
import ctypes
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from eckart.ops.native.assembly import assembled
from eckart.ops.native.build import FLAGS, HERE, LEVELS, QUIET, UNCHECKED, digest
from eckart.ops.native.layouts import FLOATS
from eckart.ops.native.library import Library, capped, loaded
from tests.support.fuzzed_products import DTYPES, LAYOUTS, Draws, described, stages_of

ARM = "aarch64-linux-musl"
OTHERS = {"aarch64-linux-gnu.2.28": "aarch64", "aarch64-macos.11.0": "aarch64", "x86_64-windows-gnu": "x86_64"}
"""Targets, and of each the architecture whose levels it has."""
HARNESS = Path(__file__).with_name("replayed.c")


def compiled(target: str, architecture: str, folder: Path, more: list[str]) -> Path:
    """Links all levels for a target, with what else is said to the compiler last."""
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, *QUIET, *UNCHECKED]
    objects = []
    for level, processor in LEVELS[architecture].items():
        for source in sorted(set(HERE.glob("*.c")) - {HERE / "dispatch.c"}):
            objects.append(str(folder / f"{source.stem}-{level}.o"))
            given = [f"-mcpu={processor}", f"-DLEVEL={level}", "-c", str(source), "-o", objects[-1]]
            subprocess.run([*compiler, *given], check=True)
    made = folder / f"made-for-{target}"
    last = [f'-DSOURCES="{digest()}"', str(HERE / "dispatch.c"), *objects, *more, "-o", str(made)]
    subprocess.run([*compiler, *last], check=True)
    return made


def recorded(seed: int, name: str, library: Library) -> bytes:
    """A random product of a layout, and what comes of it."""
    draw = Draws(seed)
    stages = stages_of(draw, name)
    layouts = [term.layout for terms in stages for term in terms]
    one = any(layout.most == 1 or layout.by_columns is not None for layout in layouts)
    vectors, kind = 1 if one else draw.any.randint(1, 5), draw.any.choice(DTYPES)
    shape = stages[0][0].layout.shape(stages[0][0].leaves, stages[0][0].options)
    assert shape is not None
    x = draw.floats(vectors, shape[1]).to(kind)
    last = stages[-1][-1]
    shape = last.layout.shape(last.leaves, last.options)
    assert shape is not None
    bias = torch.ones(shape[0]) if draw.any.random() < 0.5 else None
    program = assembled(library, stages, bias)
    assert program is not None
    y, scratch = torch.empty(vectors * program.rows, dtype=kind), vectors * program.scratch
    scratch += vectors * (program.columns + program.rows) * (kind != torch.float32)
    room = torch.empty(scratch + 1)
    library.multiply(
        None, library.number, program.address, vectors, x.data_ptr(), y.data_ptr(), FLOATS[kind], room.data_ptr()
    )
    rows, columns = (shape[1], last.options[0]) if last.layout.by_columns else shape
    start = draw.any.randrange(rows)
    stop, narrow = draw.any.randint(start + 1, rows), draw.any.random() < 0.5
    out = torch.empty((stop - start) * columns, dtype=torch.bfloat16 if narrow else torch.float32)
    number = library.layouts[last.layout.name]
    library.rows(None, 1, library.number, number, program.matrix, columns, start, stop, narrow, out.data_ptr())
    tensors = [leaf for terms in stages for term in terms for leaf in term.leaves if leaf is not None]
    tensors += [tensor for held in program.held for tensor in getattr(held, "tensors", ())]
    tensors += [x] if bias is None else [x, bias]
    kept = {tensor.data_ptr(): tensor for tensor in tensors if tensor.numel()}
    parts = [(address, _bytes(tensor), 0) for address, tensor in kept.items()]
    parts += [(ctypes.addressof(held), bytes(held), 1) for held in program.held if isinstance(held, _DESCRIBING)]
    return b"".join(
        (
            _filled(described(stages).encode()),
            _numbers(len(parts)),
            *(_numbers(where) + _numbers(len(raw), kind) + _padded(raw) for where, raw, kind in parts),
            _numbers(program.address, vectors, FLOATS[kind], x.data_ptr(), scratch),
            _filled(_bytes(y)),
            _numbers(program.matrix, number, columns, start, stop, narrow),
            _filled(_bytes(out)),
        )
    )


_DESCRIBING = (ctypes.Structure, ctypes.Array)


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 8)


def _filled(raw: bytes) -> bytes:
    return _numbers(len(raw)) + _padded(raw)


def records(seed: int, cases: int) -> Iterator[bytes]:
    """A file for `replayed.c`: `cases` of each layout."""
    yield _numbers(cases * len(LAYOUTS))
    with capped(""):
        library = loaded()
        if library is None or library.number == 0:
            raise SystemExit("this machine has no compiled products with fused multiply-adds to compare with")
        for case in range(cases):
            for place, name in enumerate(LAYOUTS):
                yield recorded(seed * 1_000_003 + case * len(LAYOUTS) + place, name, library)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="an emulator of arm64, such as qemu-aarch64-static")
    parser.add_argument("--compile", action="store_true", help="for other systems")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=40, help="of each layout")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.run:
            made = compiled(ARM, "aarch64", folder, [str(HARNESS), "-static"])
            (folder / "cases").write_bytes(b"".join(records(given.seed, given.cases)))
            if ended := subprocess.run([given.run, str(made), str(folder / "cases")], check=False).returncode:
                print(f"{given.run} ended with {ended}")
                return 1
        for target, architecture in OTHERS.items() if given.compile else ():
            print(f"{target}: {compiled(target, architecture, folder, ['-shared']).stat().st_size} bytes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
