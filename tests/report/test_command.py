"""The command that a report names: parsed again it is the run that wrote the report."""

from __future__ import annotations

import json
import re
import shlex
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.budget import ALLOCATIONS
from eckart.budget.currencies import CURRENCIES
from eckart.cli import options as o
from eckart.cli.app import main
from eckart.cli.command_line import command_line
from eckart.compressors.contract import METHODS
from eckart.jobs.adapt.directory import Request
from eckart.jobs.adapt.directory import repeating as adapting
from eckart.jobs.compress.directory import repeating as compressing_again
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.diagnose.directory import compressing
from eckart.jobs.diagnose.directory import repeating as diagnosing
from eckart.jobs.learning.loop import Training
from eckart.jobs.texts import Texts
from eckart.report import render
from support.browser import Page, asked, drawn, in_browser
from support.pages import diagnosis
from support.reports import realistic

NAMES = st.text(string.ascii_letters + string.digits + " -_./'\"$*?\\é", min_size=1, max_size=12).filter(
    lambda name: name.strip() == name
)
PATTERNS = st.lists(NAMES, max_size=3).map(tuple)
COUNTS = st.integers(2, 5000)
SHARES = st.floats(1e-6, 1.0)
RECIPES = st.builds(
    Recipe,
    method=st.sampled_from(sorted(METHODS)),
    keep=SHARES,
    of=st.sampled_from(sorted(set(CURRENCIES) - {"linear-parameters"})),
    allocation=st.none() | st.sampled_from(sorted(ALLOCATIONS)),
    floor=st.floats(0, 0.99),
    include=PATTERNS,
    exclude=PATTERNS,
    embeddings=st.booleans(),
    head=st.booleans(),
    sequential=st.booleans(),
    heal=st.integers(0, 99),
    distill=st.integers(0, 99),
    samples=COUNTS,
    length=COUNTS,
    seed=st.integers(0, 2**63 - 1),
)
TEXTS = st.builds(Texts, calibration=NAMES, evaluation=st.just("") | st.just("none") | NAMES, eval_samples=COUNTS)
DEVICES = st.sampled_from(["cpu", "cuda:1", "auto"])
MODELS = NAMES.filter(lambda name: not name.startswith("-"))


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of words: the arguments of its command; they go through a shell's quoting."""
    program, *tokens = shlex.split(shlex.join([*words, "--out", "OUT"]))
    assert program == "eckart"
    _, bound, _ = command_line().parse_args(tokens, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return bound.arguments


def same(found: Any, wanted: Any) -> None:
    """Whether options are as a dataclass has them."""
    for name, value in vars(wanted).items():
        assert getattr(found, name) == value, name


@given(RECIPES, TEXTS, MODELS, st.none() | SHARES, st.booleans(), st.none() | st.integers(1, 10**12), DEVICES)
@settings(max_examples=12, deadline=None)
def test_a_compression(
    recipe: Recipe, texts: Texts, model: str, loss: float | None, timed: bool, memory: int | None, device: str
) -> None:
    if loss is not None:
        recipe = replace(recipe, keep=Recipe.keep)
    found = parsed(compressing_again(model, recipe, texts, loss, None, memory, timed, device))
    same(found["recipe"], recipe)
    evaluation = "./none" if texts.evaluation == "none" else texts.evaluation
    same(found["texts"], replace(texts, evaluation=evaluation))
    assert (found["model"], found["device"]) == (model, device)
    assert found["max_loss"] == loss
    assert found["no_speed"] == (not timed)
    assert memory is None or o.in_bytes(found["memory"]) == pytest.approx(memory, abs=1)
    assert (found["memory"] is None) == (memory is None)


@given(
    st.builds(
        Request,
        data=NAMES,
        method=st.just("pissa"),
        rank=COUNTS,
        alpha=st.none() | SHARES,
        name=NAMES,
        include=PATTERNS,
        exclude=PATTERNS,
        validation=st.just("") | NAMES,
        length=COUNTS,
        text=st.just("") | NAMES.filter(lambda name: name != "none"),
    ),
    st.builds(Training, steps=COUNTS, rate=SHARES, batch=COUNTS, decay=SHARES, clip=SHARES, every=COUNTS),
    DEVICES,
)
@settings(max_examples=8, deadline=None)
def test_a_training(request: Request, training: Training, device: str) -> None:
    found = parsed(adapting("m", request, training, device))
    assert found["device"] == device
    same(found["request"], request)
    same(found["training"], training)


@given(
    st.fixed_dictionaries(
        {
            "against": st.none() | NAMES,
            "include": PATTERNS,
            "exclude": PATTERNS,
            "text": st.none() | NAMES,
            "samples": COUNTS,
            "length": COUNTS,
            "seed": st.integers(0, 2**63 - 1),
            "device": DEVICES,
        }
    ),
    st.lists(SHARES, max_size=3).map(tuple),
)
@settings(max_examples=8, deadline=None)
def test_a_diagnosis(told: dict[str, Any], measure: tuple[float, ...]) -> None:
    found = parsed(diagnosing("m", told, measure, None))["how"].given()
    assert found == {**told, "measure": measure}
    text = told["text"] or "news"
    linear = {"include": tuple(f"re:{re.escape(p)}" for p in told["include"]), "exclude": ("q_proj",)}
    looked_at = {**told, **linear, "exclude": ("q_proj", "embed_tokens")}
    compressed = parsed(compressing("m", looked_at, text, ["".join(told["include"]), "layers.0.q_proj"]))
    same(compressed["recipe"], Recipe("kfac", **linear, **{name: told[name] for name in ("samples", "length", "seed")}))
    assert compressed["texts"].calibration == text
    assert compressed["texts"].evaluation not in ("", text)


@in_browser
@pytest.mark.parametrize("job", ["compress", "diagnose"])
def test_the_page_changes_the_budget_alone(tmp_path: Path, job: str) -> None:
    """The slider's command is the run's with another budget, and a shell reads it as it was."""
    recipe = Recipe(
        method="svd",
        keep=0.7,
        of="linear-parameters",
        floor=0.25,
        include=("it's *", "-x", "$HOME `y`"),
        samples=7,
        length=33,
    )
    texts = Texts(calibration="my text.txt", evaluation="", eval_samples=5)
    rows = [row for row in diagnosis(layers=3)["matrices"] if "curve" in row]
    if job == "compress":
        report = realistic(layers=2)
        for site, row in zip(report["sites"], rows, strict=False):
            site["curve"] = {k: v for k, v in row["curve"].items() if k != "macs"} | {
                "error": row["curve"]["predicted_kl"]
            }
        sizes = [site["curve"]["parameters"][-1] for site in report["sites"]]
        report["size"]["linear_parameters"]["before"] = sum(sizes)
        report["command"] = compressing_again("a b/llama", recipe, texts, None, None, None, False)
    else:
        report = diagnosis(layers=2)
        told = {"include": recipe.include, "exclude": (), "samples": 7, "length": 33, "seed": 5}
        report["compress"] = compressing("a b/llama", told, "my text.txt", recipe.include)
    report["model"] = "a b/llama"
    script = "document.documentElement.dataset.command = document.getElementById('command').textContent;"
    words = shlex.split(asked(render(report), script, tmp_path, "#keep=0.6")["data-command"] or "")
    program, *tokens = words
    _, bound, _ = command_line().parse_args(tokens, exit_on_error=False, print_error=False)
    found = bound.arguments
    assert (program, found["model"], found["out"]) == ("eckart", "a b/llama", "llama-0.6")
    wanted = recipe if job == "compress" else Recipe("kfac", include=recipe.include, samples=7, length=33, seed=5)
    same(found["recipe"], replace(wanted, keep=0.6, of="linear-parameters"))
    assert found["texts"].calibration == "my text.txt"
    assert found["texts"].evaluation == ("" if job == "compress" else Texts.evaluation)


@in_browser
def test_a_report_without_a_command_says_what_is_unknown(tmp_path: Path) -> None:
    report = realistic(layers=2)
    for site in report["sites"]:
        site["curve"]["predicted_kl"] = site["curve"]["error"]
    page = Page(drawn(render(report), tmp_path))
    assert "hidden" in next(a for _, a in page.elements if a.get("id") == "again")
    script = "document.documentElement.dataset.said = document.getElementById('budget-note').textContent;"
    assert "does not say with which texts" in (asked(render(report), script, tmp_path)["data-said"] or "")


def test_a_copy_of_the_command_is_the_same_run(
    tmp_path: Path, llama_directory: Path, texts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Compressions, one for a loss among them, and a diagnosis: what is in their files but for times and memory."""
    data = ["--samples", "5", "--length", "24"]
    judged = ["--calibration", texts[0], "--eval", texts[1], "--eval-samples", "3", "--no-speed"]
    lines = [
        ["compress", *judged, *data, "--keep", "80%", "--of", "bytes", "--exclude", "q_proj", "--seed", "3"],
        ["compress", *judged, *data, "--max-loss", "0.3", "--method", "svd", "--floor", "0.2"],
        ["diagnose", "--text", texts[0], *data, "--exclude", "embed_tokens", "--seed", "3"],
    ]
    for i, (command, *options) in enumerate(lines):
        file = {"compress": "report.json", "diagnose": "diagnosis.json"}[command]
        assert main([command, str(llama_directory), *options, "--out", str(tmp_path / f"first{i}")]) == 0
        first = json.loads((tmp_path / f"first{i}" / file).read_text())
        assert main([*first["command"][1:], "--out", str(tmp_path / f"again{i}")]) == 0
        again = json.loads((tmp_path / f"again{i}" / file).read_text())
        for report in (first, again):
            del report["seconds"]
            report.pop("memory", None)
            (report.get("calibration") or {}).pop("passes", None)  # the second run finds the statistics of the first
        assert again == first
    words = [*first["compress"][1:], "--eval", texts[1], "--keep", "0.8", "--out", str(tmp_path / "small")]
    assert main(words) == 0
    assert capsys.readouterr().err.count("error") == 0
