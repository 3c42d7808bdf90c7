"""Every method that a page names is one that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eckart.adapters.contract import ADAPTERS
from eckart.budget import ALLOCATIONS
from eckart.budget.currencies import CURRENCIES
from eckart.compressors.contract import METHODS
from eckart.estimators.contract import ESTIMATORS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs" / "learn").glob("*.md")), ROOT / "docs" / "index.md"]
OPTION = re.compile(r"--method[ =]([a-z0-9-]+)")
CALL = re.compile(r"eckart\.(?:compress|adapt|fit)\([\w.()]+, (?:method=)?\"([a-z0-9-]+)\"")
CELL = re.compile(r"\| `([a-z][a-z0-9-]+)` (?=\|)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_methods_that_are_asked_for_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {*OPTION.findall(text), *CALL.findall(text)} <= {*METHODS, *ADAPTERS, *ESTIMATORS}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_tables_exist(page: Path) -> None:
    known = {*METHODS, *ADAPTERS, *ALLOCATIONS, *CURRENCIES}
    assert set(CELL.findall(page.read_text(encoding="utf-8"))) <= known
