"""The page in a browser: the budget slider against the solver, links, hovering, comparison, and what it lacks."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from eckart.budget import Candidates, allocate
from eckart.jobs.diagnose.report import diagnosis_schema
from eckart.report import render
from support.browser import Page, asked, drawn, in_browser
from support.pages import diagnosis, training
from support.reports import realistic


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return diagnosis(layers=6)


def bare() -> dict[str, Any]:
    """The least a diagnosis may hold: no text, no other model, and one matrix that is not finite."""
    return {
        "eckart": "0.1.0",
        "model": "it's mine",
        "against": None,
        "text": None,
        "seed": 0,
        "window": None,
        "summary": {},
        "matrices": [{"name": "0", "layer_type": "dense", "shape": [3, 4], "notes": ["NaN or Inf entries"]}],
        "hidden_states": [],
        "warnings": ["1 matrices hold NaN or Inf, 0 among them"],
        "seconds": 0.1,
    }


# ---- the solver -----------------------------------------------------------------------------------------------------
def market(seed: int, count: int) -> list[dict[str, list[float]]]:
    """Candidates as methods make them, and such as they should not: rising errors, equal costs, equal slopes."""
    generator = np.random.default_rng(seed)
    sites = []
    for k in range(count):
        size = int(generator.integers(2, 34))
        costs = np.sort(generator.integers(1, 5000, size)).astype(float)
        errors = np.sort(generator.exponential(1, size))[::-1].copy()
        if k % 4 == 1:
            generator.shuffle(errors)
        if k % 4 == 2:
            costs[: size // 2] = costs[0]
        if k % 4 == 3:
            errors, costs = np.arange(size - 1.0, -1, -1) / 32, 64 * np.arange(1.0, size + 1)
        errors[-1] = 0
        sites.append({"costs": costs.tolist(), "errors": errors.tolist()})
    return sites


@in_browser
def test_the_page_chooses_what_the_solver_chooses(tmp_path: Path) -> None:
    markets = [market(seed, count) for seed, count in ((0, 1), (1, 7), (2, 60))]
    markets.append(market(3, 60)[3::4])
    shares = [0.01, 0.05, 0.12, 0.3, 0.5, 0.701, 0.95, 1.0]
    script = f"""
    const found = {json.dumps(markets)}.map((sites) => {{
      const [total, solve] = [sites.reduce((all, {{ costs }}) => all + costs.at(-1), 0), solver(sites)];
      return {json.dumps(shares)}.map((share) => solve(share * total));
    }});
    document.documentElement.dataset.found = JSON.stringify(found);
    """
    found = json.loads(asked(render(bare()), script, tmp_path)["data-found"] or "")
    refused = 0
    for sites, choices in zip(markets, found, strict=True):
        candidates = [Candidates(np.array(site["costs"]), np.array(site["errors"])) for site in sites]
        total = sum(float(c.costs[-1]) for c in candidates)
        for share, choice in zip(shares, choices, strict=True):
            try:
                expected = allocate(candidates, share * total, "greedy")
            except ValueError:
                expected = None
                refused += 1
            assert choice == expected, (len(sites), share)
    assert 0 < refused < len(shares)


def chosen(report: dict[str, Any], keep: float, fixed: float = 0, attribute: str = "parameters") -> dict[str, int]:
    """What the solver gives each matrix that has a curve, in parameters or bytes."""
    rows = [row for row in report["matrices"] if "curve" in row]
    sites = [Candidates(np.array(r["curve"][attribute], float), np.array(r["curve"]["predicted_kl"])) for r in rows]
    total = fixed + sum(float(c.costs[-1]) for c in sites)
    choice = allocate(sites, keep * total - fixed, "greedy")
    return {row["name"]: row["curve"]["parameters"][i] for row, i in zip(rows, choice, strict=True)}


SEEN = """
const text = (id) => document.getElementById(id).textContent;
const sizes = () => Object.fromEntries([...document.querySelectorAll("#rows tr")].map((row) =>
  [row.querySelector("button").textContent, row.querySelector("[data-slider=then_size]").textContent]));
const said = { command: text("command"), kept: text("kept"), rise: slider.rise, sizes: sizes() };
document.documentElement.dataset.said = JSON.stringify(said);
"""


@in_browser
@pytest.mark.parametrize(("of", "fixed"), [("linear-parameters", 0), ("bytes", 3_000_000_000)])
def test_a_link_leads_to_a_budget(tmp_path: Path, report: dict[str, Any], of: str, fixed: int) -> None:
    attribute = "bytes" if of == "bytes" else "parameters"
    whole = fixed + sum(row["curve"][attribute][-1] for row in report["matrices"] if "curve" in row)
    sized = {**report, "size": {"bytes": whole}}
    root = asked(render(sized), SEEN, tmp_path, f"#keep=0.85&of={of}")
    assert "data-error" not in root
    said = json.loads(root["data-said"] or "")
    assert said["command"] == (
        f"eckart compress tuned/seven-billion --method kfac --keep 0.85 --of {of} --out seven-billion-0.85"
    )
    assert said["kept"].startswith("85.0")
    expected = chosen(report, 0.85, fixed, attribute)
    rise = 0.0
    for row in report["matrices"]:
        if row["name"] not in expected:
            assert said["sizes"][row["name"]] == ""
            continue
        at = row["curve"]["parameters"].index(expected[row["name"]])
        rise += row["curve"]["predicted_kl"][at]
        assert said["sizes"][row["name"]] == row["curve"]["size"][at]
    assert said["rise"] == pytest.approx(rise)
    assert len(set(expected.values())) > 5


# ---- what was measured ----------------------------------------------------------------------------------------------
@in_browser
def test_predictions_are_scaled_through_what_was_measured(tmp_path: Path) -> None:
    markets = [
        [(0.1, 0.2), (0.01, 0.011), (1.0, 3.5)],
        [(0.3, 0.2)],
        [(0.1, 0.3), (0.2, 0.25), (0.4, 0.9), (0.0, 0.1), (0.5, 0.0)],
    ]
    rises = [0.0, 1e-5, 0.005, 0.01, 0.03, 0.1, 0.15, 0.2, 0.3, 0.4, 0.7, 1.0, 4.0]
    script = f"""
    const found = {json.dumps(markets)}.map((pairs) => {{
      const scale = calibration(pairs);
      return {json.dumps(rises)}.map((rise) => scale(rise));
    }});
    const none = [calibration([]), calibration([[0, 1]])];
    document.documentElement.dataset.found = JSON.stringify([found, none]);
    """
    found, none = json.loads(asked(render(bare()), script, tmp_path)["data-found"] or "")
    assert none == [None, None]
    for pairs, scaled in zip(markets, found, strict=True):
        x, y = np.log(np.array(sorted(pair for pair in pairs if min(pair) > 0))).T
        y = np.maximum.accumulate(y)
        at = np.log(np.array(rises[1:]))
        # np.interp is constant outside: so is the ratio there.
        expected = np.exp(np.interp(at, x, y - x)) * rises[1:]
        inside = (at > x[0]) & (at < x[-1])
        expected[inside] = np.exp(np.interp(at[inside], x, y))
        assert scaled[0] == 0
        assert scaled[1:] == pytest.approx(expected.tolist())
        assert scaled == sorted(scaled)


PRICE = """
const read = (id) => {
  const node = document.getElementById(id);
  return node.closest("[hidden]") ? null : node.textContent;
};
const price = document.getElementById("price");
document.documentElement.dataset.said = JSON.stringify({
  label: price.querySelector("svg").getAttribute("aria-label"),
  spots: price.querySelectorAll("rect.mark").length, lines: price.querySelectorAll("polyline").length,
  rise: slider.rise, expected: slider.expected, keys: read("price-keys"), said: read("expected"),
  spoken: document.getElementById("keep").getAttribute("aria-valuetext"),
});
"""


@in_browser
@pytest.mark.parametrize("of", ["linear-parameters", "bytes"])
def test_measured_sizes_stand_beside_the_slider(tmp_path: Path, report: dict[str, Any], of: str) -> None:
    rows = {row["name"]: row["curve"] for row in report["matrices"] if "curve" in row}
    sized = {**report, "size": {"bytes": sum(curve["bytes"][-1] for curve in rows.values())}, "measured": []}
    for keep, ratio in ((0.9, 1.5), (0.6, 2.5)):
        choice = chosen(report, keep)
        at = {name: rows[name]["parameters"].index(size) for name, size in choice.items()}
        rise = sum(rows[name]["predicted_kl"][i] for name, i in at.items())
        row = {"keep": keep, "of": "linear-parameters", "predicted_kl": rise, "kl": ratio * rise, "tokens": 1020}
        sized["measured"].append({**row, "perplexity": {"before": 20.0, "after": 31.25}})
    if of == "linear-parameters":
        diagnosed = {**sized, "size": {**sized["size"], "parameters": 10**9, "linear_parameters": 10**9}}
        jsonschema.validate(diagnosed, diagnosis_schema())
    said = json.loads(asked(render(sized), PRICE, tmp_path, f"#keep=0.6&of={of}")["data-said"] or "")
    assert said["lines"] == 2
    assert said["rise"] == pytest.approx(rise)
    assert said["expected"] == pytest.approx(2.5 * rise)
    # The perplexity is what was measured too, not the exponential of the divergence.
    assert said["said"].startswith("+ ")
    assert "perplexity + 56\u00a0%" in said["said"]
    assert "scaled to what was measured by" in said["spoken"]
    assert said["keys"].startswith("scaled to what was measuredpredicted to second order")
    # A share of parameters has no place on an axis of bytes; the scale that was learned there holds.
    on_axis = of == "linear-parameters"
    assert said["spots"] == (2 if on_axis else 0)
    assert ("measured at 90.0" in said["label"]) == on_axis
    assert ("perplexity 20.00 to 31.25 on 1.02" in said["label"]) == on_axis


@in_browser
def test_without_measurements_there_is_the_prediction_alone(tmp_path: Path, report: dict[str, Any]) -> None:
    said = json.loads(asked(render(report), PRICE, tmp_path)["data-said"] or "")
    assert (said["lines"], said["spots"], said["keys"], said["said"], said["expected"]) == (1, 0, None, None, None)


@in_browser
@pytest.mark.parametrize("trained", [False, True])
def test_a_run_shows_what_it_measured(tmp_path: Path, report: dict[str, Any], trained: bool) -> None:
    run = realistic(layers=2)
    for site, row in zip(run["sites"], report["matrices"], strict=False):
        curve = {name: values for name, values in row["curve"].items() if name != "macs"}
        site["curve"] = {**curve, "error": list(curve["predicted_kl"])}
    run["size"]["linear_parameters"]["before"] = sum(site["curve"]["parameters"][-1] for site in run["sites"])
    if trained:
        run["heal"] = {"steps": 1, "loss_before": [1.0], "loss_after": [0.5]}
    said = json.loads(asked(render(run), PRICE, tmp_path)["data-said"] or "")
    assert said["spots"] == 1
    assert "this run: keep 70.0" in said["label"]
    assert "measured at 70.0\u00a0%: 0.213, predicted 0.187; perplexity 32.71 to 43.12" in said["label"]
    # What training took back says nothing of the cut.
    assert said["lines"] == (1 if trained else 2)
    if not trained:
        assert said["expected"] == pytest.approx(said["rise"] * 0.2134 / 0.1872)


@in_browser
def test_a_run_that_makes_no_fewer_numbers_is_shown_in_bytes(tmp_path: Path) -> None:
    run = realistic(layers=2)
    script = """
    document.documentElement.dataset.said = JSON.stringify([byId("measure").value, byId("trade").textContent]);
    """
    measure, _ = json.loads(asked(render(run), script, tmp_path)["data-said"] or "")
    assert measure == "kept"
    run["size"]["parameters"]["after"] = run["size"]["parameters"]["before"]
    del run["history"]
    measure, plot = json.loads(asked(render(run), script, tmp_path)["data-said"] or "")
    assert measure == "bytes"
    assert "bytes of the model" in plot


# ---- what a reader does ---------------------------------------------------------------------------------------------
@in_browser
def test_a_link_leads_to_a_matrix_a_colour_and_an_order(tmp_path: Path, report: dict[str, Any]) -> None:
    name = "model.layers.2.mlp.up_proj"
    dom = drawn(render(report), tmp_path, f"#matrix={name}&map=intruders&sort=-alpha&filter=v_proj")
    page = Page(dom)
    assert "data-error" not in dict(page.elements)["html"]
    (sorted_by,) = [a for tag, a in page.elements if tag == "th" and a.get("aria-sort") == "descending"]
    assert sorted_by["data-column"] == "alpha"
    rows = [int(str(a["data-site"])) for tag, a in page.elements if tag == "tr" and "data-site" in a]
    values = [report["matrices"][i]["alpha"] for i in rows]
    assert len(values) == 6
    assert values == sorted(values, reverse=True)
    assert f'id="detail-title" aria-live="polite">{name}<' in dom
    cells = [a for tag, a in page.elements if tag == "button" and "data-group" in a]
    assert len(cells) == 3 * len(report["matrices"])
    pressed = [str(a["aria-label"]) for a in cells if a["aria-pressed"] == "true"]
    assert len(pressed) == 3
    assert re.fullmatch(r"layer 2 up_proj: intruder dimensions \d+", pressed[0])
    assert "up_proj: moved " in pressed[1]
    assert "turned away" in pressed[2]


STEPS = """
{
const said = {};
const by = (id) => document.getElementById(id);
const title = () => by("detail-title").textContent;
const fire = (node, kind) => node.dispatchEvent(new PointerEvent(kind, { bubbles: kind === "pointerover" }));
const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const label = () => document.querySelector("#map [aria-label^='layer 1 q_proj']").getAttribute("aria-label");
said.first = title();
fire(document.querySelector("#map [aria-label^='layer 4 k_proj']"), "pointerover");
said.hovered = [title(), by("spectrum").querySelector("svg").getAttribute("aria-label")];
fire(by("map"), "pointerleave");
said.left = title();
const slide = (share) => { by("keep").value = share; by("keep").dispatchEvent(new Event("input")); };
slide(30); said.low = [by("keep").getAttribute("aria-valuetext"), by("command").textContent, label(), slider.rise];
slide(60); said.high = [by("keep").getAttribute("aria-valuetext"), by("command").textContent, label(), slider.rise];
by("keep").dispatchEvent(new Event("change"));
said.address = location.hash;
by("far").querySelector("[aria-label^='layer 3 o_proj']").click();
by("far").querySelector("[aria-label^='layer 3 o_proj']").focus();
key("ArrowLeft");
said.compared = [title(), location.hash, by("cosines").querySelectorAll("circle.mark").length];
const heads = [...document.querySelectorAll("#sites thead th")];
const head = heads.find((each) => each.dataset.column === "then_rise");
head.querySelector("button").click();
const riseIn = (row) => chosenThen(sites[row.dataset.site])?.rise ?? null;
const rises = [...document.querySelectorAll("#rows tr")].map(riseIn);
said.sorted = [head.getAttribute("aria-sort"), rises];
location.hash = "#matrix=model.layers.5.mlp.down_proj";
addEventListener("hashchange", () => {
  said.followed = title();
  document.documentElement.dataset.said = JSON.stringify(said);
});
}
"""


@in_browser
def test_hover_slide_compare_sort(tmp_path: Path, report: dict[str, Any]) -> None:
    root = asked(render(report), STEPS, tmp_path)
    assert "data-error" not in root
    said = json.loads(root["data-said"] or "")
    rows = {row["name"]: row for row in report["matrices"]}
    assert said["first"] == said["left"] == max(rows.values(), key=lambda row: row["moved"])["name"]
    assert said["hovered"][0] == "model.layers.4.self_attn.k_proj"
    assert said["hovered"][0] in said["hovered"][1]
    for (spoken, command, label, rise), keep in ((said["low"], 0.3), (said["high"], 0.6)):
        expected = chosen(report, keep)
        assert spoken.startswith(f"keep {100 * keep:.1f}")
        assert f"--keep {keep} --of linear-parameters" in command
        kept = expected["model.layers.1.self_attn.q_proj"] / 4096**2
        assert f"slider: kept {100 * kept:.1f}" in label
        at = [rows[name]["curve"]["parameters"].index(size) for name, size in expected.items()]
        sums = [rows[name]["curve"]["predicted_kl"][i] for name, i in zip(expected, at, strict=True)]
        assert rise == pytest.approx(sum(sums))
    assert said["low"][3] > said["high"][3]
    assert said["address"] == "#of=linear-parameters&keep=0.6"
    assert said["compared"][0] == "model.layers.2.self_attn.o_proj"
    assert said["compared"][1].endswith("matrix=model.layers.2.self_attn.o_proj")
    assert said["compared"][2] == 10
    order, rises = said["sorted"]
    assert order == "descending"
    assert rises[-1] is None
    assert rises[:-1] == sorted(rises[:-1], reverse=True)
    assert said["followed"] == "model.layers.5.mlp.down_proj"


# ---- one page for all jobs ------------------------------------------------------------------------------------------
@in_browser
@pytest.mark.parametrize("name", ["diagnosis", "bare", "training"])
def test_every_part_can_be_reached_and_read(tmp_path: Path, report: dict[str, Any], name: str) -> None:
    shown = {"diagnosis": report, "bare": bare(), "training": training()}[name]
    page = Page(drawn(render(shown), tmp_path))
    root = dict(page.elements)["html"]
    assert root == {"lang": "en", "data-ready": "true"}
    attributes = [a for _, a in page.elements]
    ids = [a["id"] for a in attributes if a.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {a["for"] for tag, a in page.elements if tag == "label"}
    for tag, a in page.elements:
        if tag in ("input", "select"):
            assert a.get("id") in labelled
        if a.get("role") == "img" or "data-group" in a:
            assert a.get("aria-label")
        for reference in (a.get("aria-labelledby") or "").split():
            assert reference in ids
    hidden = {a["id"] for a in attributes if "hidden" in a and a.get("id")}
    parts = {"budget", "compare", "hidden-states", "samples"}
    assert hidden & parts == {"diagnosis": {"samples"}}.get(name, parts)


def test_the_page_of_a_large_model_is_small() -> None:
    text = render(diagnosis())
    assert len(diagnosis()["matrices"]) == 225
    assert len(text.encode()) < 5_000_000
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|XMLHttpRequest|import\(|innerHTML|\beval\(", text)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_told_apart_by_light_and_by_night() -> None:
    """WCAG 2 AA: 4.5 for text, 3 for what is not text."""
    css = files("eckart.report").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in css.split("@media", 2)[:2])
    text = [(ink, page) for ink in ("ink", "muted", "accent", "good", "bad", "warn") for page in ("panel", "page")]
    text += [("ink", "warn-page"), ("ink", "bad-page"), ("ink", "faint"), ("warn", "panel")]
    text += [("heat-ink-0", "heat-0"), ("heat-ink-1", "heat-1")]
    for colours in (light, dark):
        for pairs, least in ((text, 4.5), ([("accent", "panel"), ("bad", "panel")], 3.0)):
            for pair in pairs:
                a, b = sorted(luminance(colours[name]) for name in pair)
                assert (b + 0.05) / (a + 0.05) >= least, pair


def test_generated_reports_are_like_real_ones(report: dict[str, Any]) -> None:
    """Every number of the generator has a description in the schema of diagnoses, where there is one."""
    jsonschema.validate(report, diagnosis_schema())
