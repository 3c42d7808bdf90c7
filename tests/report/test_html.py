"""The report: its schema, its files, the page's safety, and what a browser makes of the page."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError

from eckart.report import decimate, render, schema, to_json, write_report
from support.browser import Page, asked, drawn, in_browser
from support.reports import realistic

HOSTILE = "</script><script>document.documentElement.dataset.broken='yes'</script><img src=x onerror=alert(1)>"


def minimal() -> dict[str, Any]:
    """The least a report may hold: no evaluation, no speed, no calibration, one site without curve or spectrum."""
    report = realistic(layers=1)
    report["sites"] = report["sites"][-1:]
    for name in ("quality", "speed", "calibration", "allocation"):
        report[name] = None
    for name in ("samples", "history"):
        del report[name]
    (site,) = report["sites"]
    for name in ("curve", "spectrum", "dense_bytes"):
        del site[name]
    return {**report, "warnings": [], "requested": {"max_loss": 0.5}}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return realistic()


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


# ---- schema ---------------------------------------------------------------------------------------------------------
def test_good_reports_are_valid(validator: Draft202012Validator, report: dict[str, Any]) -> None:
    for good in (report, minimal(), {**report, "sites": []}):
        validator.validate(json.loads(to_json(good)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("eckart",), None),
        (("requested",), {"keep": 0.7}),
        (("requested",), {"keep": 0.7, "of": "entropy"}),
        (("requested",), {"keep": 0.7, "of": "bytes", "max_loss": 0.1}),
        (("requested", "keep"), 1.4),
        (("size", "bytes"), 12),
        (("size", "bytes", "after"), -1),
        (("size", "parameters", "before"), 1.5),
        (("quality", "after"), {"stderr": 0.1}),
        (("quality", "top1_agreement"), 1.2),
        (("seconds", "fit"), "fast"),
        (("warnings",), "one"),
        (("sites", 0, "shape"), [576]),
        (("sites", 0, "shape"), [576, 0]),
        (("sites", 0, "dense"), "no"),
        (("sites", 0, "error"), -0.1),
        (("sites", 0, "spectrum"), [1.0] * 65),
        (("sites", 0, "curve"), {"parameters": [0] * 34, "error": [1.0] * 34}),
        (("sites", 0, "rnak"), 3),
        (("samples",), {"prompt": "a", "before": "b"}),
    ],
)
def test_bad_values_are_rejected(
    validator: Draft202012Validator, report: dict[str, Any], path: tuple[Any, ...], value: object
) -> None:
    bad = copy.deepcopy(report)
    place = bad
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        validator.validate(bad)


def test_every_required_field_is_missed(validator: Draft202012Validator, report: dict[str, Any]) -> None:
    report = {**report, "sites": report["sites"][:1]}
    for holder, names in (
        (report, schema()["required"]),
        (report["sites"][0], schema()["$defs"]["Matrix"]["required"]),
    ):
        for name in names:
            value = holder.pop(name)
            assert not validator.is_valid(report), name
            holder[name] = value
    validator.validate(report)


def test_every_field_is_described() -> None:
    def undescribed(node: object, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = []
        for name, field in node.get("properties", {}).items():
            found += [] if field.get("description") else [f"{path}.{name}"]
            found += undescribed(field, f"{path}.{name}")
        for part in (*node.get("oneOf", []), node.get("items"), *node.get("$defs", {}).values()):
            found += undescribed(part, path)
        return found

    assert undescribed(schema(), "report") == []


# ---- files ----------------------------------------------------------------------------------------------------------
def test_files_are_written_whole(tmp_path: Path, report: dict[str, Any]) -> None:
    write_report(report, tmp_path / "new")
    write_report(report, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["report.html", "report.json"]
    assert json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8")) == report
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert page == render(report)
    assert len(page) < 5_000_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_named_and_nothing_is_touched(tmp_path: Path, value: float) -> None:
    good = minimal()
    write_report(good, tmp_path)
    bad = copy.deepcopy(good)
    bad["sites"][0]["curve"] = {"parameters": [1, 2], "error": [0.5, value]}
    with pytest.raises(ValueError, match=r"report\.sites\[0\]\.curve\.error\[1\] is -?(nan|inf)"):
        write_report(bad, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == good
    assert len(list(tmp_path.iterdir())) == 2


def test_values_that_are_not_json_are_named() -> None:
    with pytest.raises(TypeError, match=r"report\.memory\.peak_rss_bytes is .* of type int64"):
        to_json({**minimal(), "memory": {"peak_rss_bytes": np.int64(3)}})
    with pytest.raises(TypeError, match="the key 3"):
        to_json({3: "three"})  # type: ignore[dict-item]


def test_decimate_keeps_ends_order_and_limit() -> None:
    for length in range(1, 200):
        values = [float(i) for i in range(length)]
        short = decimate(values, 33)
        assert short[0] == values[0]
        assert short[-1] == values[-1]
        assert len(short) == min(length, 33)
        assert short == sorted(set(short))
    with pytest.raises(ValueError, match="got 1"):
        decimate([1.0], 1)


# ---- the page as text -----------------------------------------------------------------------------------------------
def test_page_asks_for_nothing(report: dict[str, Any]) -> None:
    text = render(report)
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|XMLHttpRequest|import\(", text)
    page = Page(text)
    addresses = [
        value for _, attributes in page.elements for name in ("src", "href") if (value := attributes.get(name))
    ]
    assert addresses == ["data:,"]


def test_page_never_makes_markup_of_data(report: dict[str, Any]) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", render(report))


def test_policy_admits_exactly_the_script_and_the_style(report: dict[str, Any]) -> None:
    page = Page(render(report))
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "content-security" in str(a).lower()]
    hashes = [
        "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (page.texts["script"][1], page.texts["style"][0])
    ]
    (policy,) = policies
    assert policy is not None
    assert re.findall(r"sha256-[^']+", policy) == hashes
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("name", [HOSTILE, "<!--<script>", "{{js}}", "\u2028\ud800", "a & b"])
def test_no_name_breaks_out(report: dict[str, Any], name: str) -> None:
    hostile = copy.deepcopy(report)
    hostile["sites"][1]["name"] = hostile["model"] = hostile["samples"]["after"] = name
    page, plain = Page(render(hostile)), Page(render(report))
    assert page.elements == plain.elements
    assert json.loads(page.texts["script"][0]) == hostile
    assert page.texts["script"][1:] == plain.texts["script"][1:]


# ---- the page in a browser ------------------------------------------------------------------------------------------
@in_browser
def test_browser_draws_everything(tmp_path: Path, report: dict[str, Any]) -> None:
    hostile = copy.deepcopy(report)
    hostile["sites"][1]["name"] = HOSTILE
    dom = drawn(render(hostile), tmp_path)
    page = Page(dom)
    (root,) = [attributes for tag, attributes in page.elements if tag == "html"]
    assert root.get("data-ready") == "true"
    assert "data-error" not in root
    assert "data-broken" not in root
    (failure,) = [attributes for _, attributes in page.elements if attributes.get("id") == "failure"]
    assert "hidden" in failure
    assert not [tag for tag, _ in page.elements if tag == "img"]

    rows = [attributes for tag, attributes in page.elements if tag == "tr" and "data-site" in attributes]
    assert len(rows) == len(hostile["sites"])
    cells = [attributes for tag, attributes in page.elements if tag == "button" and "data-group" in attributes]
    assert len(cells) == len(hostile["sites"])
    assert all(attributes.get("aria-label") for attributes in cells)
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 3
    assert all(attributes.get("aria-label") for attributes in pictures)
    headings = [attributes for tag, attributes in page.elements if tag == "th" and "aria-sort" in attributes]
    assert len(headings) >= 8
    assert "43.12" in dom


@in_browser
def test_browser_draws_the_least_report(tmp_path: Path) -> None:
    root = dict(Page(drawn(render(minimal()), tmp_path)).elements)["html"]
    assert root == {"lang": "en", "data-ready": "true"}


STEPS = """
{
const said = {};
const names = () => [...document.querySelectorAll("#sites tbody button")].map((button) => button.textContent);
const heads = [...document.querySelectorAll("#sites thead button")];
const sort = () => heads.find((button) => button.textContent.includes("Error")).click();
const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const chosen = () => document.getElementById("detail-title").textContent;
said.first = chosen();
sort();
said.falling = [document.querySelector("[aria-sort=descending]").textContent.trim(), ...names().slice(0, 3)];
sort();
said.rising = [document.querySelectorAll("[aria-sort=ascending]").length, names().at(-1)];
const box = document.getElementById("filter");
box.value = "layers.7. Q_PROJ"; box.dispatchEvent(new Event("input"));
said.filtered = [names(), document.getElementById("count").textContent];
box.value = ""; box.dispatchEvent(new Event("input"));
const cell = document.querySelector("#map button[aria-label^='layer 3 k_proj']");
cell.click(); cell.focus();
said.clicked = [chosen(), document.querySelector("#sites tr.chosen button").textContent];
key("ArrowRight"); said.right = chosen();
key("ArrowDown"); said.down = chosen();
key("Home"); said.home = chosen();
said.stops = document.querySelectorAll("#map button[tabindex='0']").length;
const measure = document.getElementById("measure");
measure.value = "error"; measure.dispatchEvent(new Event("change"));
said.error = document.querySelector("#map .key").textContent;
document.documentElement.dataset.said = JSON.stringify(said);
}
"""


@in_browser
def test_sorting_filter_and_keys(tmp_path: Path, report: dict[str, Any]) -> None:
    root = asked(render(report), STEPS, tmp_path)
    assert "data-error" not in root
    said = json.loads(root["data-said"] or "")
    by_error = [site["name"] for site in sorted(report["sites"], key=lambda site: -site["error"])]
    assert said["first"] == by_error[0]
    assert said["falling"][0].endswith("Error")
    assert said["falling"][1:] == by_error[:3]
    assert said["rising"] == [1, by_error[0]]
    assert said["filtered"] == [["model.layers.7.self_attn.q_proj"], "1 of 211 matrices"]
    assert said["clicked"] == ["model.layers.3.self_attn.k_proj"] * 2
    assert said["right"] == "model.layers.4.self_attn.k_proj"
    assert said["down"] == "model.layers.4.self_attn.v_proj"
    assert said["home"] == "model.layers.0.self_attn.q_proj"
    assert said["stops"] == 1
    assert "error" in said["error"]
