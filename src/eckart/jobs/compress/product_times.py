"""What the products of a method's candidates take on this machine: timed once, kept in the user's cache."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart._version import __version__
from eckart.budget.product_time import Product, Timed
from eckart.compressors.contract import CompressorCard, Family, members
from eckart.errors import Refused
from eckart.files.json import read_json, write_json
from eckart.ops.native.build import digest
from eckart.ops.native.library import native
from eckart.progress import Progress, silent
from eckart.statistics import Statistics
from eckart.structures.base import StructuredMatrix
from eckart.structures.dense import Dense

SHAPES = ((256, 256), (192, 576), (576, 576), (1536, 576), (576, 1536), (1536, 1536))
"""Of the matrices that are timed, (out, in)."""
TOKENS = (1, 128)
"""How many vectors at once: those of decoding, and of reading a prompt."""
SIZES = 6
"""Sizes of a method that are timed at most."""
COLD_BYTES = 48 << 20
"""Copies of a matrix that take turns are as large together, so that none is in a cache when its turn comes."""
COPIES = 64
PATIENCE = 0.05
"""Seconds that one product is timed for, at least three rounds."""


@dataclass(frozen=True)
class Sample:
    """A timed candidate: the method and size it is of, and its product."""

    method: str
    size: int
    timed: Timed


def kind_of(structure: StructuredMatrix) -> str:
    """What decides how a structure is multiplied with: its kind, the bits of its codes, and those of what is in it."""
    inner = ", ".join(kind_of(child) for child in structure.operands())
    bits = structure.options().get("bits")
    return structure.kind + (f" {bits} bits" if bits is not None else "") + (f"({inner})" if inner else "")


def product_of(structure: StructuredMatrix, tokens: int) -> Product:
    """What the model of time is told of a product."""
    cost = structure.cost()
    return Product(kind_of(structure), *structure.shape, tokens, cost.bytes, cost.macs)


@torch.inference_mode()
def seconds_of(structure: StructuredMatrix, tokens: int, patience: float = PATIENCE) -> float:
    """Seconds of `structure(x)`, x (tokens, in), by whatever product runs here; the least of several rounds' medians.

    Copies of the structure take turns, as the matrices of a model do: one that was used a moment ago would be in a
    cache.
    """
    count = max(1, min(COPIES, COLD_BYTES // max(1, structure.cost().bytes)))
    copies = [structure, *(copy.deepcopy(structure) for _ in range(count - 1))]
    x = torch.randn(tokens, structure.shape[1], generator=torch.Generator().manual_seed(0)).to(structure.dtype)
    structure(x)
    rounds: list[float] = []
    began = time.perf_counter()
    turns, each = cycle(copies), max(3, min(count, 16))
    while len(rounds) < 3 or time.perf_counter() - began < patience:
        laps = []
        for one in islice(turns, each):
            clock = time.perf_counter()
            one(x)
            laps.append(time.perf_counter() - clock)
        rounds.append(statistics.median(laps))
    return min(rounds)


def example(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Statistics]:
    """A matrix of noise and statistics of inputs and gradients without correlation: every method fits them."""
    out, columns = shape
    generator = torch.Generator().manual_seed(out * 100003 + columns)
    weight = (torch.randn(shape, generator=generator) / columns**0.5).to(dtype)
    found = Statistics(
        tokens=columns,
        input_second_moment=torch.eye(columns),
        input_mean=torch.zeros(columns, dtype=torch.float64),
        input_abs_mean=torch.ones(columns, dtype=torch.float64),
        input_abs_max=torch.ones(columns, dtype=torch.float64),
        gradient_second_moment=torch.eye(out),
        fisher_rows=torch.ones(out, dtype=torch.float64),
        fisher_columns=torch.ones(columns, dtype=torch.float64),
        input_sample=torch.randn(256, columns, generator=generator),
        gradient_pairs=torch.randn(256, columns + out, generator=generator),
    )
    return weight, found


def candidates(card: CompressorCard, shape: tuple[int, int], dtype: torch.dtype) -> Iterator[tuple[str, int, Any]]:
    """Some candidates of each member of a method for a matrix of that shape: method, size and structure."""
    family: Family = card.entry(*example(shape, dtype))
    offers: dict[str, list[tuple[int, int]]] = {}
    for size, (name, own) in zip(family.sizes, members(family, card), strict=True):
        offers.setdefault(name, []).append((own, size))
    for name, found in offers.items():
        for own, size in spread(sorted(found)):
            yield name, own, family.build(size).structure


def spread(found: Sequence[tuple[int, int]], most: int = SIZES) -> list[tuple[int, int]]:
    """At most so many of them, at even distances, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]


def time_method(
    card: CompressorCard,
    dtype: torch.dtype,
    shapes: Iterable[tuple[int, int]] = SHAPES,
    seconds: Callable[[StructuredMatrix, int], float] = seconds_of,
    progress: Progress = silent,
) -> list[Sample]:
    """Times the products of a method's candidates, and of the dense matrix, at several shapes."""
    samples = []
    shapes = list(shapes)
    for done, shape in enumerate(shapes):
        progress("time products", done, len(shapes))
        arms = [("dense", 0, Dense(example(shape, dtype)[0])), *candidates(card, shape, dtype)]
        samples += [
            Sample(name, size, Timed(product_of(structure, tokens), seconds(structure, tokens)))
            for name, size, structure in arms
            for tokens in TOKENS
        ]
    progress("time products", len(shapes), len(shapes))
    return samples


def machine(dtype: torch.dtype) -> dict[str, Any]:
    """What timings depend on besides the method."""
    return {
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "native": f"{native()} {digest()}",
        "dtype": str(dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
        "eckart": __version__,
    }


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def timings(
    card: CompressorCard, options: Mapping[str, Any], dtype: torch.dtype, cache: Path, progress: Progress = silent
) -> list[Sample]:
    """`time_method`, or what it found on this machine before: a file of `cache` for each machine and method.

    Args:
        card: of the method, taking its options.
        options: these; as JSON they are part of the file's key.
        dtype: of the model.
        cache: a directory, which need not exist yet.
        progress: told of the phase "time products".

    Raises:
        Refused: nothing can be written there.
    """
    key = {**machine(dtype), "method": card.name, "options": dict(options)}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / f"products-{name}.json"
    try:
        found = read_json(file)
        if found["of"] == key:
            return [_sample(row) for row in found["samples"]]
    except (Refused, KeyError, TypeError, ValueError):
        pass  # missing, damaged or another's: timed anew
    samples = time_method(card, dtype, progress=progress)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_json({"of": key, "samples": [_row(sample) for sample in samples]}, file)
    except OSError as error:
        raise Refused(f"timings cannot be kept in {cache} ({error}): set ECKART_CACHE") from error
    return samples


def _row(sample: Sample) -> dict[str, Any]:
    product = asdict(sample.timed.product)
    return {"method": sample.method, "size": sample.size, "seconds": sample.timed.seconds, **product}


def _sample(row: dict[str, Any]) -> Sample:
    product = Product(**{name: row[name] for name in Product.__dataclass_fields__})
    if not row["seconds"] > 0:
        raise ValueError("a product takes time")
    return Sample(str(row["method"]), int(row["size"]), Timed(product, float(row["seconds"])))
