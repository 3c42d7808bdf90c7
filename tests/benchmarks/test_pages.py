"""Pages and cards are what the rows say, and the small language of tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.common.rows import MEASURED, RESULTS, Row, Rows, read, results
from benchmarks.pages.__main__ import TABLES, measured, pages, used
from benchmarks.pages.cards import Lines, cards
from benchmarks.pages.tables import Table, shown
from benchmarks.plots import IMAGES, PICTURES

ROWS = [
    Row("b", {"method": "svd", "keep": 0.8}, {"error": 0.25, "seconds": 2.0, "size": {"bytes": 10}}),
    Row("b", {"method": "svd", "keep": 0.6}, {"error": 0.5, "seconds": 2.0}),
    Row("b", {"method": "peft:lora", "keep": 0.6}, {"error": "0.1", "seconds": 3.0}),
    Row("other", {"method": "svd", "keep": 0.6}, {"error": 9.0}),
]


@pytest.mark.parametrize("family", [file.stem for file in sorted(RESULTS.glob("*.jsonl"))])
def test_rows_are_whole_and_of_one_measurement_each(family: str) -> None:
    rows = results(family)
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        assert row.found
        assert row.machine["threads"]
        assert row.versions["torch"]
        assert row.day
        assert row.source == MEASURED or row.source.startswith("as printed on ")


def test_pages_are_made_from_the_rows() -> None:
    for file, text in pages().items():
        assert file.read_text("utf-8") == text, f"{file} is not what the rows say: run `make docs`"
        assert "{{" not in text
    assert used() == set(TABLES)


def test_cards_are_made_from_the_rows() -> None:
    for file, text in measured().items():
        assert file.read_text("utf-8") == text, f"{file} is not what the rows say: run `make docs`"


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_drawn_from_the_rows(name: str) -> None:
    text = (IMAGES / f"{name}.svg").read_text("utf-8")
    assert f"benchmarks.plots {PICTURES[name].digest}" in text, "draw it anew: python -m benchmarks.plots"


def test_a_format_leaves_out_what_is_missing() -> None:
    fields = ROWS[0].fields
    assert shown("{error:.3f}[ ± {spread:.3f}]", fields) == "0.250"
    assert shown("{error:.3f} ± {spread:.3f}", fields) == ""
    assert shown("{method:code}, {keep:%}, {size.bytes}", fields) == "`svd`, 80 %, 10"
    assert shown("{method:code}{method:whose} {error:.3f}", ROWS[2].fields) == "PEFT's `lora` by PEFT's own 0.1"
    assert [shown("{v:perplexity}", {"v": v}) for v in (29.7, 34_000.0, 1e7)] == ["29.70", "3.4e4", "1e7"]


def test_rows_go_across_and_joined_to_the_right() -> None:
    table = Table(
        "f",
        {"benchmark": "b"},
        [("method", "{method:code}")],
        [("{keep:%}", "{error:.2f}"), ("{keep:%}, bytes", "{size.bytes}")],
        [("s", "{seconds:g}"), ("shares", "{keep}")],
    )
    assert table.markdown(ROWS).splitlines() == [
        "| method | 80 % | 80 %, bytes | 60 % | s | shares |",
        "|---|---|---|---|---|---|",
        "| `svd` | 0.25 | 10 | 0.50 | 2 | 0.8, 0.6 |",
        "| PEFT's `lora` |  |  | 0.1 | 3 | 0.6 |",
    ]


def test_two_rows_for_one_place_are_refused() -> None:
    twice = [*ROWS, Row("b", {"method": "svd", "keep": 0.6, "seed": 1}, {"error": 0.7})]
    method = [("method", "{method}")]
    with pytest.raises(ValueError, match="two rows of f give one cell below 60 %"):
        Table("f", {"benchmark": "b"}, method, [("{keep:%}", "{error:.2f}")]).markdown(twice)
    with pytest.raises(ValueError, match="two rows of f give one line"):
        Table("f", {"benchmark": "b"}, method).markdown(twice)
    with pytest.raises(ValueError, match="no row of f"):
        Table("f", {"benchmark": "c"}, method).markdown(twice)


def test_lines_of_cards_stand_apart_or_together() -> None:
    apart = Lines("f", "here", "errors at {keep:%}", {"benchmark": "b"}, "{keep:%}: {error:.2f}")
    joined = Lines("f", "there", "all", {"method": "svd"}, "{error:.1f}", together=", ", words="at ")
    other = Lines("g", "there", "all", {}, "{error}")
    assert cards("f", [apart, joined, other], ROWS) == {
        "conditions": {"here": "errors at 80 %", "there": "all"},
        "rows": {
            "lora": {"here": ["60 %: 0.1"]},
            "svd": {"here": ["80 %: 0.25", "60 %: 0.50"], "there": ["at 0.2, 0.5, 9.0"]},
        },
    }


def test_lines_of_other_conditions_have_another_short_name() -> None:
    kinds = [Lines("f", "here", title, {"benchmark": "b"}, "{error}") for title in ("errors", "accuracies")]
    with pytest.raises(ValueError, match="'here' of f is both 'errors' and 'accuracies'"):
        cards("f", kinds, ROWS)


def test_a_program_goes_on_behind_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    first = Rows("b", file)
    assert first.get({"seed": 0}) is None
    written = first.add({"seed": 0, "method": "svd"}, {"error": 0.5})
    with file.open("a", encoding="utf-8") as torn:
        torn.write('{"benchmark": "b", "wh')
    again = Rows("b", file)
    assert again.get({"method": "svd", "seed": 0}) == written
    assert list(again) == read(file) == [written]
    again.add({"seed": 1, "method": "svd"}, {"error": 0.25})
    assert len(read(file)) == 2
    assert list(Rows("c", file)) == []
    machine = json.loads(file.read_text("utf-8").splitlines()[0])["machine"]
    assert machine["cpu"]
    assert machine["threads"] >= 1
