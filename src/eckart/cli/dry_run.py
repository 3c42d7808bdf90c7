"""What `eckart compress --dry-run` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from eckart.report.numbers import shown_bytes, shown_count


def dry_run_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """Matrices taken and left, what the budget gives, and time and memory."""
    yield _coverage(report)
    if report["budget"]:
        yield _budget(report)
    yield _resources(report)


def _coverage(report: Mapping[str, Any]) -> Table:
    coverage = report["coverage"]
    shares = [
        f"{part['taken'] / max(1, part['total']):.1%} of {shown_count(part['total'])} {name.replace('_', ' ')}"
        for name, part in ((name, coverage[name]) for name in ("parameters", "linear_parameters"))
    ]
    table = _table(f"{report['model']}: {report['method']} takes {' and '.join(shares)}")
    table.add_column("matrices", overflow="fold")
    for heading in ("", "shape", "numbers"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("left, because", overflow="fold")
    for row in coverage["matrices"]:
        shape = " x ".join(map(str, row["shape"]))
        cells = (row["name"], str(row["count"]), shape, shown_count(row["parameters"]), row["why"])
        table.add_row(*map(Text, cells), style="" if row["taken"] else "dim")
    return table


def _budget(report: Mapping[str, Any]) -> Table:
    budget, asked = report["budget"], report["requested"]
    size = budget["size"]
    change = ", ".join(
        f"{name} {show(size[name]['before'])} to {show(size[name]['after'])}"
        for name, show in (("parameters", shown_count), ("bytes", shown_bytes))
    )
    if "keep" in asked:
        share = f"keep {asked['keep']:.4g} of {asked['of']} (at least {budget['least']:.3g} can be)"
    else:
        share = f"{asked['counts']} {asked['each']} for every matrix"
    title = f"{share}: {change}"
    table = _table(title)
    table.add_column("matrices", overflow="fold")
    several = budget["matrices"][0]["counts"] == "candidate"
    for heading in ("", "form" if several else budget["matrices"][0]["counts"], "dense", "kept"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in budget["matrices"]:
        sizes = row["sizes"]
        span = "" if not sizes else str(sizes[0]) if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        span = ", ".join(row["forms"]) if several else span
        dense = str(row["dense"]) if row["dense"] else ""
        table.add_row(*map(Text, (row["name"], str(row["count"]), span, dense, f"{row['keep']:.1%}")))
    return table


def _resources(report: Mapping[str, Any]) -> Table:
    table = _table("expected")
    for heading in ("", "seconds", "memory"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    seconds, memory = report["seconds"], report["memory"]
    for name in dict.fromkeys([*seconds, *memory, "total"]):
        if name != "total":
            table.add_row(name, *_cells(name, seconds, memory))
    table.add_row("total", *_cells("total", seconds, memory), style="bold")
    return table


def _cells(name: str, seconds: Mapping[str, float], memory: Mapping[str, int]) -> tuple[str, str]:
    shown = seconds.get(name, 0.0)
    return f"{shown:.{0 if shown >= 10 else 1}f}" if name in seconds else "", shown_bytes(
        memory[name]
    ) if name in memory else ""


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left")
