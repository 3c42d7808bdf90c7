"""The rows that benchmarks write: one JSON line a measurement, with what it was, where and by which versions.

`what` is all that a measurement depends on and is its key: a program that is started again goes on behind the rows
that its file holds. `found` is what came out, with the peer's numbers beside ours where there is a peer. Rows that are
kept for good stand in benchmarks/results/FAMILY.jsonl, from which the pages and the cards are made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent.parent / "results"
MEASURED = "measured"
PACKAGES = ("torch", "numpy", "scipy", "transformers", "peft", "weightwatcher")


@dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        benchmark: the module under `benchmarks` that made it.
        what: model, method, sizes, seed, ...: the key.
        found: numbers.
        source: `MEASURED`, or how else the numbers came here.
        machine: what it ran on.
        versions: of Python and the packages that compute.
        day: when it was written, ISO 8601.
    """

    benchmark: str
    what: Mapping[str, Any]
    found: Mapping[str, Any]
    source: str = MEASURED
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    day: str = ""

    @property
    def key(self) -> str:
        """The measurement's name among all: rows of one key are of one measurement."""
        return json.dumps([self.benchmark, self.what], sort_keys=True)

    @property
    def fields(self) -> dict[str, Any]:
        """Everything that a table may ask for, by name."""
        return {"benchmark": self.benchmark, "source": self.source, **self.what, **self.found}


class Rows:
    """The rows of a file, which may not exist yet; without a file they are kept in memory only.

    A last line that an interrupted run left unfinished is cut off.
    """

    def __init__(self, benchmark: str, file: Path | None) -> None:
        self.benchmark, self.file = benchmark, file
        self._rows = {row.key: row for row in read(file)} if file is not None else {}

    def __iter__(self) -> Iterator[Row]:
        return (row for row in self._rows.values() if row.benchmark == self.benchmark)

    def get(self, what: Mapping[str, Any]) -> Row | None:
        """The row of this measurement, where it was measured and not taken from elsewhere."""
        row = self._rows.get(Row(self.benchmark, what, {}).key)
        return row if row is not None and row.source == MEASURED else None

    def add(self, what: Mapping[str, Any], found: Mapping[str, Any]) -> Row:
        """Writes a measurement of now behind the others, or in the place of an older one."""
        row = Row(self.benchmark, what, found, MEASURED, machine(), versions(), date.today().isoformat())
        replaced = row.key in self._rows
        self._rows[row.key] = row
        if self.file is None:
            return row
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if replaced:
            partial = self.file.with_name(self.file.name + ".partial")
            partial.write_text("".join(map(line, self._rows.values())), "utf-8")
            partial.replace(self.file)
        else:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(line(row))
        return row


def add_option(parser: argparse.ArgumentParser) -> None:
    """--json FILE, the same for all programs."""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="rows are added to this file, and those that it holds are not measured again; "
        "benchmarks/results/FAMILY.jsonl holds those from which pages and cards are made",
    )


def line(row: Row) -> str:
    """A row as a line of a file."""
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def read(file: Path) -> list[Row]:
    """The rows of a file, none where there is no file; an unfinished last line is cut off."""
    if not file.exists():
        return []
    text = file.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, "utf-8")
    return [Row(**json.loads(entry)) for entry in whole.splitlines()]


def results(family: str) -> list[Row]:
    """The rows of a family that are kept."""
    return read(RESULTS / f"{family}.jsonl")


@cache
def machine() -> dict[str, Any]:
    """The processor's name, its cores, the threads in use and the instructions that PyTorch found."""
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability() + (", AMX" if tiles else ""),
        "system": f"{platform.system()} {platform.machine()}",
    }


@cache
def versions() -> dict[str, str]:
    """Of Python, eckart and those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in ("eckart", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for entry in described.read_text("utf-8").splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or "unknown"
