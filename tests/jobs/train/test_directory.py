"""`eckart train`: what it learns, writes and says, that an interrupted run ends as another, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import eckart
from eckart.cli.app import main
from eckart.errors import Refused
from eckart.jobs.learning.checkpoint import CheckpointFile
from eckart.jobs.learning.loop import Training
from eckart.jobs.named import parsed
from eckart.jobs.train.directory import Request, train_directory
from eckart.report.learning import learning_schema
from eckart.structures import StructuredMatrix
from support.browser import asked, in_browser

TRAINING = Training(steps=6, batch=4, every=2, rate=1e-2)


def request(texts: tuple[str, str], **options: Any) -> Request:
    return Request(texts[0], validation=texts[1], length=16, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "galore:rank=4,every=3"}, {"parametrization": "rigl:keep=0.5,every=2"}, {"optimizer": "muon"}],
    ids=["adamw", "galore", "rigl", "dropout"],
)
def test_an_interrupted_run_ends_where_another_does(
    options: dict[str, Any],
    llama_directory: Path,
    gpt2_directory: Path,
    texts: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GPT-2 leaves a tenth of its hidden numbers out at random."""
    source = str(gpt2_directory if options.get("optimizer") == "muon" else llama_directory)
    asked = request(texts, scratch=True, **options)
    torch.manual_seed(1)
    whole = train_directory(source, tmp_path / "whole", asked, TRAINING)
    write, count = CheckpointFile.write, [0]

    def stop(*arguments: Any) -> None:
        write(*arguments)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointFile, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            train_directory(source, tmp_path / "out", asked, TRAINING)
    torch.manual_seed(2)
    report = train_directory(source, tmp_path / "out", asked, TRAINING, resume=True)
    for name in ("loss", "validation", "spectra", "best_step", "parameters", "moved_by", "optimizer_bytes"):
        assert report[name] == whole[name]
    ours, theirs = (load_file(tmp_path / where / "model.safetensors") for where in ("out", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    jsonschema.validate(report, learning_schema())
    assert report["validation"][-1]["loss"] < report["validation"][0]["loss"] - 0.05
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    structured = [m for m in model.modules() if isinstance(m, StructuredMatrix)]
    assert bool(structured) == ("parametrization" in options)
    assert not (tmp_path / "out.partial").exists()
    named = options.get("optimizer", "").partition(":")[0]
    assert set(report["moved_by"]) == {named, "adamw"} - {""}


def test_fine_tuning_starts_from_the_weights_and_keeps_the_best(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    training = Training(steps=4, batch=2, every=1, rate=10.0)
    report = train_directory(str(llama_directory), tmp_path / "out", request(texts), training)
    assert report["validation"][0]["loss"] == min(each["loss"] for each in report["validation"])
    assert report["best_step"] == 0
    kept, began = load_file(tmp_path / "out/model.safetensors"), load_file(llama_directory / "model.safetensors")
    assert all(torch.equal(kept[name], began[name]) for name in kept)


def test_on_the_command_line(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", str(llama_directory), "--data", texts[0], "--length", "16", "--steps", "2", "--every", "1"]
    out = tmp_path / "out"
    assert main([*line, "--optimizer", "galore:rank=2", "--out", str(out), "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "train.json").read_text())
    assert "galore:rank=2" in report["command"]
    assert set(report["moved_by"]) == {"galore", "adamw"}
    assert eckart.__version__ == report["eckart"]
    assert (out / "report.html").stat().st_size > 10_000


def test_adam_s_knows_the_length_of_the_run_and_leaves_two_of_four(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    out, few = tmp_path / "out", Training(steps=2, batch=4, every=1, rate=1e-2)
    report = train_directory(str(llama_directory), out, request(texts, optimizer="adam-s"), few)
    assert report["best_step"] == few.steps
    hidden = {name: w for name, w in load_file(out / "model.safetensors").items() if "_proj" in name}
    assert hidden
    assert all(int((w.view(-1, 4) != 0).sum(1).max()) == 2 for w in hidden.values())


@in_browser
def test_its_page_is_drawn_whole(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> None:
    training = Training(steps=3, batch=1, every=1)
    train_directory(str(llama_directory), tmp_path / "out", request(texts, optimizer="muon"), training)
    script = "document.documentElement.dataset.plots = [...document.querySelectorAll('.plot svg')].length;"
    root = asked((tmp_path / "out/report.html").read_text("utf-8"), script, tmp_path)
    assert "data-error" not in root
    assert int(root["data-plots"] or 0) == 4


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_values(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eckart.jobs.learning import loop

    real, count = loop.loss_of, [0]

    def poisoned(model: Any, batch: Any) -> Any:
        count[0] += torch.is_grad_enabled()
        return real(model, batch) * (float("nan") if count[0] == 4 else 1)

    monkeypatch.setattr(loop, "loss_of", poisoned)
    with pytest.raises(Refused, match=r"loss of step 4 is nan: lower the rate.*checkpoint\.safetensors"):
        train_directory(str(llama_directory), tmp_path / "out", request(texts), TRAINING)
    assert not (tmp_path / "out").exists()
    report = train_directory(str(llama_directory), tmp_path / "out", request(texts), TRAINING, resume=True)
    assert len(report["loss"]) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "galor"}, "galore"),
        ({"optimizer": "lora"}, "is no optimizer but an adapter"),
        ({"optimizer": "galore:rnk=4"}, "did you mean 'rank'"),
        ({"optimizer": "galore:rank=many"}, "a whole number is wanted"),
        ({"optimizer": "galore:lr=1"}, "no option 'lr'"),
        ({"optimizer": "galore:rank"}, "NAME:OPTION=VALUE"),
        ({"parametrization": "lora"}, "is no parametrization but an adapter"),
        ({"parametrization": "rigl:seed=3"}, "rigl has no option 'seed'"),
        ({"include": ["q_proj"]}, "none is asked for"),
        ({"other_rate": 0.0}, "other_rate=0.0"),
        ({"length": 1}, "length=1"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        Request("data.txt", **options)


def test_scratch_needs_a_configuration_of_a_dense_model(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"has no config\.json"):
        train_directory(str(tmp_path), tmp_path / "out", request(texts, scratch=True), TRAINING)
    codes = tmp_path / "codes"
    shutil.copytree(llama_directory, codes)
    config = json.loads((codes / "config.json").read_text())
    (codes / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(Refused, match="model in codes"):
        train_directory(str(codes), tmp_path / "out", request(texts, scratch=True), TRAINING)


def test_an_optimizer_that_moves_nothing_is_named(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    asked = request(texts, optimizer="muon", parametrization="rigl:keep=0.5")
    report = train_directory(str(llama_directory), tmp_path / "out", asked, Training(steps=1, batch=1))
    assert any("muon moves nothing here" in warning for warning in report["warnings"])


def test_options_in_one_word() -> None:
    assert parsed("muon") == ("muon", {})
    assert parsed("a:b=(1, 2),c=x,d=True") == ("a", {"b": (1, 2), "c": "x", "d": True})
    for wrong in ("a:b=1,b=2", "a:b", "a:=1"):
        with pytest.raises(Refused):
            parsed(wrong)
