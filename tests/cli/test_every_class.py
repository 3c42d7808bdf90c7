"""Every class of model goes through the whole command line, calibrated on what it reads and judged by what fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eckart.cli.app import main
from eckart.models.transformers import load
from support.commands import report_of
from support.directories import save_data, save_zoo

DRIFT, PERPLEXITY, ACCURACY = "drift of the outputs", "perplexity", "accuracy"

CASES = [
    ("Llama", "text", PERPLEXITY),
    ("Mamba", "text", PERPLEXITY),
    ("BERT masked", "text", DRIFT),
    ("BERT masked", "pairs", DRIFT),
    ("BERT classifier", "text", DRIFT),
    ("BERT classifier", "pairs", ACCURACY),
    ("T5", "text", DRIFT),
    ("T5", "pairs", PERPLEXITY),
    ("BART", "pairs", PERPLEXITY),
    ("Whisper", "sounds", PERPLEXITY),
    ("ViT", "images", ACCURACY),
    ("ConvNeXt", "images", ACCURACY),
    ("CLIP", "captions", DRIFT),
]
LEARNED = {"T5": "pairs", "BART": "pairs", "Whisper": "sounds", "ViT": "images", "BERT classifier": "pairs"}
FEW = ["--samples", "6", "--length", "12"]


@pytest.mark.parametrize(("name", "kind", "metric"), CASES)
def test_a_model_goes_through(name: str, kind: str, metric: str, tmp_path: Path, capsys: Any) -> None:
    model = save_zoo(name, tmp_path / "m")
    data, held = (save_data(kind, tmp_path / side, seed) for seed, side in enumerate(("data", "held"), 1))
    out = tmp_path / "out"
    given = ["--method", "svd", "--calibration", data, "--eval", held, "--eval-samples", "4", "--no-speed", *FEW]
    assert main(["compress", str(model), "--out", str(out), "-q", *given]) == 0
    quality = report_of(out)["quality"]
    assert quality["metric"] == metric
    assert quality["before"]["mean"] != quality["after"]["mean"] or metric == ACCURACY
    assert quality["after"]["stderr"] is not None
    assert architectures(out) == architectures(model)
    assert {stem(key) for key in keys(model)} <= {stem(key) for key in keys(out)}
    capsys.readouterr()
    told = ["--text", held, "--samples", "4", "--length", "12", "--no-speed", "-q"]
    assert main(["evaluate", str(out), "--against", str(model), *told]) == 0
    again = json.loads(capsys.readouterr().out)["quality"]
    assert again["metric"] == metric
    assert again["after"]["mean"] == pytest.approx(quality["after"]["mean"], rel=1e-4)
    assert main(["diagnose", str(out), "--text", held, "--samples", "3", "--length", "12", "-q"]) == 0
    assert main(["export", str(out), "--to", "dense", "--out", str(tmp_path / "dense")]) == 0
    assert keys(tmp_path / "dense") == keys(model)
    assert main(["compress", str(model), "--dry-run", "--method", "kfac", "-q", "--calibration", data, *FEW]) == 0


@pytest.mark.parametrize("name", LEARNED)
def test_a_model_with_answers_or_labels_learns(name: str, tmp_path: Path) -> None:
    model, data = save_zoo(name, tmp_path / "m"), save_data(LEARNED[name], tmp_path / "data", 1)
    out = tmp_path / "out"
    training = ["--steps", "12", "--every", "4", "--rate", "0.01", "--rank", "2", "--length", "24", "-q"]
    assert main(["adapt", str(model), "--out", str(out), "--data", data, *training]) == 0
    report = json.loads((out / "training.json").read_text())
    assert min(report["loss"]) < report["loss"][0]
    assert report["forgetting"] is None
    assert "was forgotten" in report["warnings"][0]


@pytest.mark.parametrize("name", ["BERT masked", "CLIP"])
def test_a_model_without_labels_cannot_learn_from_a_file(name: str, tmp_path: Path, capsys: Any) -> None:
    model, data = save_zoo(name, tmp_path / "m"), save_data("pairs", tmp_path / "data", 1)
    assert main(["adapt", str(model), "--out", str(tmp_path / "out"), "--data", data, "--length", "12"]) == 2
    assert "with eckart.adapt and a loss of your own" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "ViT",
            ["--eval", "none"],
            "'mixture' is a text, and ViTForImageClassification reads image: give a folder",
        ),
        ("ViT", ["--calibration", "self", "--eval", "none"], "reads image and writes nothing"),
        ("T5", ["--calibration", "self", "--eval", "none"], "answers what it reads, so it cannot write"),
        ("BERT masked", ["--calibration", "self", "--eval", "none"], "give a text file with --calibration"),
        ("ViT", ["--eval", "news"], "'news' is a text, and ViTForImageClassification reads image"),
        ("BERT masked", ["--max-loss", "5%"], "a rise of the perplexity, needs a model that goes on with text"),
    ],
)
def test_what_does_not_fit_a_class_is_refused(
    name: str, options: list[str], said: str, tmp_path: Path, capsys: Any
) -> None:
    model = save_zoo(name, tmp_path / "m")
    assert main(["compress", str(model), "--out", str(tmp_path / "out"), *options, "--length", "12", "-q"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_model_that_cannot_write_is_calibrated_on_texts_alone(tmp_path: Path, texts: tuple[str, str]) -> None:
    model = save_zoo("BERT masked", tmp_path / "m")
    out = tmp_path / "out"
    assert main(["compress", str(model), "--out", str(out), "--eval", texts[1], "--length", "32", "-q"]) == 0
    warnings = report_of(out)["warnings"]
    assert any("its calibration mixture is of texts alone" in warning for warning in warnings)
    assert any("speed is that of writing text" in warning for warning in warnings)


def test_drift_needs_something_to_drift_from(tmp_path: Path, texts: tuple[str, str], capsys: Any) -> None:
    model = save_zoo("BERT masked", tmp_path / "m")
    assert main(["evaluate", str(model), "--text", texts[1], "--length", "32"]) == 2
    assert "name that with --against" in " ".join(capsys.readouterr().err.split())


def architectures(directory: Path) -> list[str]:
    found: list[str] = json.loads((directory / "config.json").read_text())["architectures"]
    return found


def keys(directory: Path) -> set[str]:
    return set(load(str(directory)).model.state_dict())


def stem(key: str) -> str:
    """The module that a tensor belongs to, without what is inside of a structure."""
    return key.partition(".structure.")[0] if ".structure." in key else key.rpartition(".")[0]
