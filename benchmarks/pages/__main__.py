"""Makes docs/measurements/*.md and src/eckart/measured/*.json from the rows in benchmarks/results.

    python -m benchmarks.pages

The prose of a page is `benchmarks/pages/PAGE.md`; a line `{{table NAME}}` in it stands for a table of this package.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.common.rows import RESULTS, results
from benchmarks.pages import (
    adapters,
    compressors,
    diagnostics,
    estimators,
    inference,
    kernels,
    layers,
    models,
    optim,
    parametrizations,
    sketching,
)
from benchmarks.pages.cards import cards
from benchmarks.pages.lines import LINES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGES = ROOT / "docs/measurements"
CARDS = ROOT / "src/eckart/measured"
TABLES = (
    compressors.TABLES
    | adapters.TABLES
    | diagnostics.TABLES
    | inference.TABLES
    | models.TABLES
    | parametrizations.TABLES
    | optim.TABLES
    | layers.TABLES
    | sketching.TABLES
    | estimators.TABLES
    | kernels.TABLES
)
NOTE = "<!-- Written from {source} and benchmarks/results; run `make docs` after a change there. -->"


_MARK = re.compile(r"^\{\{table ([\w-]+)\}\}$", re.MULTILINE)


def pages() -> dict[Path, str]:
    """The text of every page, by its file."""
    rows = {file.stem: results(file.stem) for file in sorted(RESULTS.glob("*.jsonl"))}

    def page(template: Path) -> str:
        text = _MARK.sub(
            lambda mark: TABLES[mark[1]].markdown(rows[TABLES[mark[1]].family]), template.read_text("utf-8")
        )
        return NOTE.format(source=template.relative_to(ROOT)) + "\n\n" + text

    return {PAGES / template.name: page(template) for template in sorted(HERE.glob("*.md"))}


def measured() -> dict[Path, str]:
    """The text of every family's file of measured lines."""
    made = {}
    for family in sorted({kind.family for kind in LINES}):
        text = json.dumps(cards(family, LINES, results(family)), indent=1, ensure_ascii=False) + "\n"
        made[CARDS / f"{family}.json"] = text
    return made


def used() -> set[str]:
    """The names of the tables that pages show."""
    return {mark for template in HERE.glob("*.md") for mark in _MARK.findall(template.read_text("utf-8"))}


def main() -> None:
    PAGES.mkdir(exist_ok=True)
    for file, text in (pages() | measured()).items():
        file.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
