"""The harness of the benchmarks on a tiny model: its rows, going on with them, and the table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.common.rows import Rows, read
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, statistics_for
from support.tiny import VOCABULARY, tiny_llama

BUDGETS = [("bytes", 0.6), ("linear-parameters", 0.6), ("linear-parameters", 0.001)]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    return importlib.import_module("benchmarks.common.harness")


def bench_of(harness: Any) -> Any:
    model = tiny_llama()
    ids = torch.randint(VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(0))
    sites = find_sites(model)

    def judge(other: torch.nn.Module) -> Any:
        found = evaluate(other, ids, model)
        return harness.Score(found.perplexity, found.stderr, found.kl)

    def statistics(needs: Sequence[Need]) -> Mapping[str, Statistics]:
        return statistics_for(model, {s.name: s.module for s in sites}, needs, [ids], seed=0)[0]

    return harness.Bench(
        "b", {"model": "tiny"}, model, sites, {"ids": judge}, "perplexity", "KL", statistics, trial=ids
    )


def test_rows_are_computed_once(harness: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    bench = bench_of(harness)
    rows = harness.compute(bench, ["kfac"], BUDGETS[:1], Rows("b", file), False)
    with file.open("a", encoding="utf-8") as torn:
        torn.write('{"setting": {"mod')
    rows = harness.compute(bench, ["kfac", "auto"], BUDGETS, Rows("b", file), False)
    assert [tuple(r.what[name] for name in harness.BUDGET) for r in rows] == [
        ("dense", "", 1.0), *((m, *b) for m in ("kfac", "auto") for b in BUDGETS)
    ]  # fmt: skip
    assert read(file) == rows
    dense = rows[0].found["size"]
    for row in rows[1:]:
        if "refused" not in row.found:
            assert row.found["size"][row.what["of"]] <= row.what["keep"] * dense[row.what["of"]]
            assert bool(row.found["trials"]) == (row.what["method"] == "auto")
    assert "cannot be met" in rows[3].found["refused"]

    def never(needs: Sequence[Need]) -> Mapping[str, Statistics]:
        raise AssertionError(needs)

    assert harness.compute(replace(bench, statistics=never), ["kfac"], BUDGETS, Rows("b", file), False)
    table = harness.markdown(read(file)).splitlines()
    assert table[0] == "model tiny"
    assert len({line.count("|") for line in table[2:]}) == 1
    assert len(table) == 4 + len(rows)


def test_the_front_is_within_the_standard_error(harness: Any) -> None:
    def found(size: int, value: float, ascending: bool) -> dict[str, Any]:
        score = {"value": value, "stderr": 1.0, "distance": 0.0}
        return {"ascending": ascending, "size": {"bytes": size}, "scores": {"j": score}}

    sizes, values = [40, 30, 30, 20, 10], [10.0, 10.5, 10.4, 12.0, 12.9]
    assert harness.front([found(*p, False) for p in zip(sizes, values, strict=True)], "j") == [
        False,
        False,
        True,
        False,
        True,
    ]
    mirrored = [found(size, -value, True) for size, value in zip(sizes, values, strict=True)]
    assert harness.front(mirrored, "j") == [False, False, True, False, True]


def test_markdown_needs_a_file(harness: Any) -> None:
    with pytest.raises(SystemExit, match="--json"):
        harness.main(harness.parser("", of="bytes").parse_args(["--markdown"]), "b", lambda: None)
    with pytest.raises(SystemExit, match="unknown watts"):
        harness.main(harness.parser("", of="bytes").parse_args(["--of", "watts"]), "b", lambda: None)
