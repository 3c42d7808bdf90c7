"""What a reader makes of the page: colours that say no more than the numbers, labels, narrow screens, taps, copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eckart.report import render
from support.browser import asked, in_browser
from support.pages import diagnosis, training
from support.reports import realistic


@in_browser
def test_nearly_equal_numbers_have_nearly_equal_colours(tmp_path: Path) -> None:
    """A range of colours holds all its numbers, and is at least half as wide as the largest is far from 0."""
    generator = np.random.default_rng(0)
    sets = [
        (centre + spread * generator.standard_normal(20)).tolist()
        for centre in (-400.0, -2.0, 0.0, 1e-6, 2.1, 3e5)
        for spread in (0.0, 1e-9, 0.05, 3.0, 1e6)
    ]
    script = f"""
    const spans = ["range", "top", "whole"];
    const found = {json.dumps(sets)}.map((values) => spans.map((span) => limits({{ span }}, values)));
    document.documentElement.dataset.found = JSON.stringify(found);
    """
    found = json.loads(asked(render(training()), script, tmp_path)["data-found"] or "")
    for values, ((low, high), top, whole) in zip(sets, found, strict=True):
        least, most = min(values), max(values)
        assert low <= least
        assert high >= most
        assert high - low >= 0.499 * max(abs(least), abs(most))
        if most - least >= 0.5 * max(abs(least), abs(most)):
            assert (low, high) == pytest.approx((least, most))
        assert top == [0, most]
        assert whole == [0, 1]


LABELS = """
const found = [];
const box = el("div", { class: "plot" });
byId("trade").closest("section").after(box);
box.style.width = "420px";
for (let x = 1; x <= 20; x += 1) {
  const points = Array.from({ length: 20 }, (_, i) => [i + 1, 20 / (i + 1)]);
  draw(box, { height: 230, label: "", x: { title: "x", format: String }, y: { title: "y", format: String },
    lines: [{ points }, { points: [[1, 10], [20, 10]], kind: "thin" }], rules: [{ x, name: `rank ${x}` }],
    marks: [{ x, y: 20 / x, kind: "now", name: "slider", title: `at ${x}` }] });
  const texts = [...box.querySelectorAll("text.name")].map((text) => text.getBBox());
  const rule = Number(box.querySelector("line.rule").getAttribute("x1"));
  const hits = [...box.querySelectorAll(".hit")];
  hits[0].dispatchEvent(new MouseEvent("click"));
  const tip = box.querySelector(".tip").textContent;
  const halo = getComputedStyle(box.querySelector("text.name")).paintOrder;
  found.push({ texts: texts.map((t) => [t.x, t.y, t.x + t.width, t.y + t.height]), rule, tip, halo });
}
document.documentElement.dataset.found = JSON.stringify(found);
"""


@in_browser
def test_labels_stand_clear_of_rules_and_of_each_other(tmp_path: Path) -> None:
    found = json.loads(asked(render(training()), LABELS, tmp_path)["data-found"] or "")
    for x, drawing in enumerate(found, 1):
        first, second = drawing["texts"]
        for left, _, right, _ in (first, second):
            assert not left < drawing["rule"] < right
        apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
        assert apart, x
        assert drawing["halo"].startswith("stroke")
        assert drawing["tip"] == f"at {x}"


NARROW = """
const wide = (node) => node.scrollWidth > node.clientWidth + 1;
document.documentElement.dataset.found = JSON.stringify({
  page: document.documentElement.scrollWidth - innerWidth,
  totals: [...document.querySelectorAll(".heat .total")].filter(wide).length,
  count: document.querySelectorAll("#map td.total").length,
  more: wide(document.getElementById("sites").parentElement),
  sideways: !document.getElementById("sideways").hidden,
  said: document.getElementById("map-said").textContent });
"""


@in_browser
@pytest.mark.parametrize("name", ["diagnosis", "compress", "training"])
def test_a_narrow_page_runs_into_nothing(tmp_path: Path, name: str) -> None:
    report = {"diagnosis": diagnosis(layers=6), "compress": realistic(layers=6), "training": training()}[name]
    for width in (500, 1280):
        found = json.loads(asked(render(report), NARROW, tmp_path, width=width)["data-found"] or "")
        assert found["page"] <= 0
        assert found["totals"] == 0
        assert found["count"] == 7
        # Columns that do not fit are said to be there.
        assert found["sideways"] == found["more"]
        assert found["more"] or name != "diagnosis"
        assert ": " in found["said"]


COPY = """
// As where pages from a disk may not write the clipboard.
Object.defineProperty(navigator, "clipboard", { value: undefined });
const code = byId("again-command");
code.closest("details").open = true;
const button = code.closest(".command").querySelector("button");
button.focus();
const found = [document.activeElement === button, button.textContent, code.textContent];
button.click();
Promise.resolve().then(() => null).then(() => null).then(() => {
  document.documentElement.dataset.found = JSON.stringify([...found, button.textContent, String(getSelection())]);
});
"""


@in_browser
def test_commands_can_be_copied(tmp_path: Path) -> None:
    report: dict[str, Any] = training()
    report["command"] = ["eckart", "adapt", "smollm2", "--data", "my questions.jsonl", "--steps", "7"]
    page = render(report)
    reached, before, line, after, selected = json.loads(asked(page, COPY, tmp_path)["data-found"] or "")
    assert line == "eckart adapt smollm2 --data 'my questions.jsonl' --steps 7 --out smollm2-adapter-again"
    assert (reached, before, selected) == (True, "Copy", line)
    assert after in ("Copied", "Selected")
