"""`eckart compress`, run in process on tiny models on disk: what it writes, says and returns."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from eckart import METHODS, __version__
from eckart.cli.app import main
from eckart.jobs.calibration import calibration_text, text_of
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.texts import Texts
from eckart.report import schema
from support.commands import SMALL, nothing_left, prose, report_of
from support.tiny import CONTEXT, save_tiny, tiny_llama


@pytest.mark.parametrize("method", sorted(METHODS))
def test_compress_with_every_method(
    method: str, run: Callable[..., int], tmp_path: Path, texts: tuple[str, str], llama_directory: Path
) -> None:
    out = tmp_path / "out"
    assert run(out, "--method", method, "--keep", "0.8", "--of", "bytes", "--seed", "3") == 0
    report = report_of(out)
    assert report["eckart"] == __version__
    assert (report["model"], report["method"], report["seed"]) == (str(llama_directory), method, 3)
    assert report["requested"] == {"keep": 0.8, "of": "bytes"}
    if METHODS[method].needs:
        assert report["calibration"]["text"] == texts[0]
        assert report["calibration"]["tokens"] == 4 * 32
    else:
        assert report["calibration"] is None
    assert report["speed"] is None
    assert [said for said in report["warnings"] if "rounded to" not in said] == []
    assert any("rounded to" in said for said in report["warnings"]) == any(s.get("input_bits") for s in report["sites"])
    size = report["size"]
    weights = sum(t.numel() * t.element_size() for t in load_file(out / "model.safetensors").values())
    assert size["bytes"]["after"] == weights <= 0.8 * size["bytes"]["before"]
    quality = report["quality"]
    assert (quality["metric"], quality["text"], quality["tokens"]) == ("perplexity", texts[1], 3 * 31)
    assert quality["kl"] > 0
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert any(type(module).__module__.startswith("eckart") for module in loaded.modules())
    assert "report.json" in os.listdir(out)
    assert (out / "report.html").read_text().startswith("<!doctype html>") or (out / "report.html").stat().st_size > 0
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "report.html",
        "report.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--eval", "none"],
        ["--eval", "none", "--sequential"],
        ["--method", "kfac", "--eval", "none", "--sequential", "--heal", "3"],
        ["--method", "svd", "--heal", "3"],
        ["--method", "rtn", "--of", "bytes", "--keep", "0.6", "--heal", "3"],
        ["--embeddings", "--of", "bytes", "--keep", "0.7"],
        ["--head", "--method", "gptq", "--of", "bytes", "--keep", "0.5"],
        ["--allocation", "greedy", "--floor", "0.3"],
        ["--include", "model.layers.0.*", "--exclude", "q_proj", "--keep", "0.9"],
        ["--method", "svd", "--of", "macs", "--eval", "none"],
        ["--keep", "1.0", "--of", "parameters"],
    ],
    ids=" ".join,
)
def test_reports_of_other_options_are_valid(options: list[str], run: Callable[..., int], tmp_path: Path) -> None:
    assert run(tmp_path / "out", *options) == 0
    report = report_of(tmp_path / "out")
    assert (report["quality"] is None) == ("none" in options)
    if "none" in options:
        calibration = report["calibration"]
        assert (calibration is not None and calibration["sequential"]) == ("--sequential" in options)
    assert ("heal" in report) == ("heal" in report["seconds"]) == ("--heal" in options)
    if "--heal" in options:
        heal = report["heal"]
        assert heal["steps"] == 3
        assert len(heal["loss_before"]) == len(heal["loss_after"]) == 2
        assert all(0 < after <= before for before, after in zip(heal["loss_before"], heal["loss_after"], strict=True))
        assert report["calibration"]["tokens"] == 4 * 32
    if "--keep" in options and options[options.index("--keep") + 1] == "1.0":
        assert all(site["dense"] for site in report["sites"])
        assert report["quality"]["kl"] == 0
        assert all(pair["before"] == pair["after"] for pair in report["size"].values())
        assert report["quality"]["before"] == report["quality"]["after"]
    if "--exclude" in options:
        assert {site["name"].rpartition(".")[2] for site in report["sites"]} == {
            *("k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        }


def test_gpt2(run: Callable[..., int], tmp_path: Path, gpt2_directory: Path) -> None:
    assert run(tmp_path / "out", "--sequential", model=gpt2_directory) == 0
    report = report_of(tmp_path / "out")
    assert report["method"] == "auto"
    assert report["size"]["bytes"]["after"] <= 0.8 * report["size"]["bytes"]["before"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_speed_is_reported(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    model = tiny_llama()
    model.config.max_position_embeddings = 40
    save_tiny(tmp_path / "short", model)
    arguments = ["compress", str(tmp_path / "short"), "--out", str(out), "--method", "svd", *SMALL]
    (tmp_path / "a.txt").write_text(prose(1, 100))
    assert main([*arguments, "--calibration", str(tmp_path / "a.txt"), "--eval", "none"]) == 0
    speed = report_of(out)["speed"]
    assert speed["threads"] == 1
    assert speed["dtype"] == "float32"
    assert speed["prefill_tokens_per_second"]["before"] > 0
    shown = capsys.readouterr()
    assert "decode tokens/s" in shown.out
    assert f"wrote {out}" in shown.out.replace("\n", "")


def test_max_loss_finds_the_smallest_model_that_passes(run: Callable[..., int], tmp_path: Path) -> None:
    sizes = []
    for loss in ("0.02", "0.5"):
        out = tmp_path / loss
        assert run(out, "--max-loss", loss, "--eval-samples", "6") == 0
        report = report_of(out)
        assert report["requested"] == {"max_loss": float(loss)}
        sizes.append(report["size"]["bytes"]["after"])
        for step in report["history"]:
            assert 0 < step["keep"] < 1
            assert step["parameters"] > 0
    assert sizes[1] < sizes[0]


def test_max_loss_needs_an_evaluation(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    for options in (["--max-loss", "0.1", "--eval", "none"], ["--max-loss", "-1"], ["--max-loss", "0"]):
        assert run(tmp_path / "out", *options) == 2
        assert f"max_loss={float(options[1])}" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "swd"], "unknown compressor 'swd'; did you mean 'svd'? there are afm, "),
        (["--keep", "0"], "keep=0.0 is not a share"),
        (["--keep", "1.2"], "keep=1.2 is not a share"),
        (["--keep", "nan"], "keep=nan"),
        (["--of", "size"], "--of 'size' is none of linear-parameters, parameters, bytes, macs"),
        (["--allocation", "best"], "--allocation 'best' is none of exact, farms, greedy"),
        (["--allocation", ""], "--allocation '' is none of exact"),
        (["--max-loss", "0.1", "--allocation", "best"], "--allocation 'best'"),
        (
            ["--max-loss", "0.1", "--method", "rtn", "--of", "linear-parameters"],
            "no size of rtn is smaller in linear-parameters",
        ),
        (["--max-loss", "inf"], "max_loss=inf must be above 0 and finite"),
        (["--max-loss", "nan"], "max_loss=nan must be above 0"),
        (["--keep", "half"], "--keep half: a share is needed, as in 0.8 or 80%"),
        (["--keep", "120%"], "keep=1.2 is not a share"),
        (["--method", "lora"], "'lora' is no compressor but an adapter: eckart.adapt, or eckart adapt --method lora"),
        (["--keeep", "0.5"], "unknown option --keeep; did you mean '--keep'? see eckart compress --help"),
        (["--memory", "much"], "--memory 'much' is no float"),
        (["--keep", "inf"], "keep=inf is not a share"),
        (["--keep", "-1"], "keep=-1.0 is not a share"),
        (["--memory", "0"], "memory=0.0 is no number of GB above 0"),
        (["--memory", "-1"], "memory=-1.0 is no number"),
        (["--memory", "nan"], "memory=nan is no number"),
        (["--memory", "inf"], "memory=inf is no number"),
        (["--floor", "nan"], "floor=nan"),
        (["--floor", "-1"], "floor=-1.0"),
        (["--samples", "-1"], "samples=-1"),
        (["--heal", "-1"], "heal=-1 steps a block cannot be made"),
        (["--length", "0"], "length=0"),
        (["--seed", str(2**64)], f"seed={2**64} is not in 0..2^63 - 1"),
        (["--exclude", "fc9"], "pattern 'fc9' matches no matrix; there are model.embed_tokens, model.layers.*"),
        (["--exclude", "*"], "no matrix to work on"),
        (["--floor", "2"], "floor=2.0"),
        (["--include", "fc9"], "pattern 'fc9' matches no matrix; there are model.embed_tokens, model.layers.*"),
        (["--include", "re:("], "'re:(' is not a regular expression"),
        (["--keep", "0.01"], "keep=0.01 of bytes cannot be met with auto: the least is 0."),
        (
            ["--method", "rtn", "--of", "parameters"],
            "with rtn: it leaves parameters as they are; count bytes, --of bytes",
        ),
        (["--method", "svd", "--of", "parameters", "--keep", "0.01"], "without --embeddings and --head ("),
        (["--samples", "0"], "samples=0"),
        (["--length", "1"], "length=1"),
        (["--length", "100000"], f"sequences of 100000 tokens do not fit the model's context of {CONTEXT}"),
        (["--eval-samples", "0"], "eval_samples=0"),
        (["--eval-samples", "-1"], "eval_samples=-1"),
        (["--calibration", "nowhere.txt"], "there is no text file 'nowhere.txt'"),
        (["--eval", "nowhere.txt"], "there is no text file 'nowhere.txt'"),
        (["--scheduler", "nonsense"], "nonsense|dist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    options: list[str], message: str, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", *options) == 2
    shown = capsys.readouterr()
    assert "eckart: error:" in shown.err
    assert any(part in shown.err for part in message.split("|")), shown.err
    assert "Traceback" not in shown.err
    assert "wrote" not in shown.out
    assert nothing_left(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_corrected_request_needs_no_resume(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--include", "fc9") == 2
    assert run(tmp_path / "out", "--eval", "none") == 0


def test_keep_and_max_loss_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "x", "--out", "y", "--keep", "0.5", "--max-loss", "0.1"]) == 2
    assert "--keep is not allowed with --max-loss" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere/at/all", "/nonexistent", "./here"])
def test_a_model_that_is_not_there(name: str, run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "out", model=name) == 2
    assert f"there is no directory {name}" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


def test_a_hub_name_that_cannot_be_reached(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "out", model="nobody/nothing") == 2
    assert "there is no directory nobody/nothing, and the hub cannot be asked" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


def test_a_bad_weight_is_named(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    save_tiny(tmp_path / "m", model)
    assert run(tmp_path / "out", model=tmp_path / "m") == 2
    assert "model.layers.0.mlp.up_proj.weight has 1 NaN or Inf entries" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize("options", [[], ["--method", "svd"], ["--method", "svd", "--eval", "none"]], ids=str)
def test_a_bad_weight_elsewhere_is_named(
    options: list[str], run: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    model = tiny_llama()
    model.model.embed_tokens.weight.data[7, 3] = -torch.inf
    save_tiny(tmp_path / "m", model)
    assert run(tmp_path / "out", *options, model=tmp_path / "m") == 2
    assert "model.embed_tokens.weight has 1 NaN or Inf entries of 9600" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b" \n", b"a\0b", b"caf\xe9 ", b"too short"], ids=str)
@pytest.mark.parametrize("option", ["--calibration", "--eval"])
def test_texts_that_are_no_text(
    option: str, content: bytes, run: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    assert run(tmp_path / "out", option, str(tmp_path / "text.txt")) == 2
    said = {
        b"a\0b": "binary file (NUL at byte 1)",
        b"caf\xe9 ": "is not UTF-8 text",
        b"too short": "one sequence needs 32",
    }
    assert said.get(content, "holds no text") in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


def test_nan_activations_are_reported(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    model = tiny_llama()
    model.model.norm.weight.data[0] = torch.nan
    save_tiny(tmp_path / "m", model)
    assert run(tmp_path / "out", model=tmp_path / "m") == 2
    assert "NaN" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


def test_out_that_exists_is_left_alone(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    assert run(tmp_path / "out") == 2
    assert f"{tmp_path / 'out'} exists and is not empty" in capsys.readouterr().err.replace("\n", "")
    assert os.listdir(tmp_path / "out") == ["mine"]
    (tmp_path / "file").write_text("x")
    assert run(tmp_path / "file") == 2
    assert "exists and is not a directory" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "x"
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", "--eval", "none", "--method", "svd") == 0
    report_of(tmp_path / "empty")


def test_out_that_cannot_be_made(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("x")
    assert run(tmp_path / "file" / "out") == 2
    assert "is a file; name a directory that is in no file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "x"


def test_parents_of_out_are_made(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(tmp_path / "a" / "b" / "out", "--eval", "none", "--method", "svd") == 0
    report_of(tmp_path / "a" / "b" / "out")


def test_out_with_a_trailing_slash(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(f"{tmp_path}/out/", "--eval", "none", "--method", "svd") == 0  # type: ignore[arg-type]
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_evaluating_on_the_calibration_text_is_refused(
    run: Callable[..., int], tmp_path: Path, capsys: Any, texts: tuple[str, str]
) -> None:
    few = ["--samples", "400", "--eval-samples", "400"]
    shutil.copy(texts[0], tmp_path / "copy.txt")
    (tmp_path / "most.txt").write_text(Path(texts[0]).read_text() + prose(9, 3))
    for options in (
        ["--eval", texts[0]],
        ["--eval", str(tmp_path / "copy.txt")],
        ["--eval", str(tmp_path / "most.txt"), *few],
        ["--calibration", "mixture", "--eval", "wikipedia"],
    ):
        assert run(tmp_path / "out", *options) == 2
        message = capsys.readouterr().err
        assert "are the same" in message
        assert "name another --eval" in message
        assert nothing_left(tmp_path / "out")


def test_a_calibration_text_that_is_evaluated_in_part_is_warned_of(
    run: Callable[..., int], tmp_path: Path, texts: tuple[str, str], capsys: Any
) -> None:
    calibration, evaluation = (Path(t).read_text() for t in texts)
    lines = calibration.splitlines(keepends=True)
    (tmp_path / "mixed.txt").write_text(evaluation + "".join(lines[:60]))
    many = ["--length", "128", "--samples", "40", "--eval-samples", "40", "--method", "asvd"]
    assert run(tmp_path / "out", "--eval", str(tmp_path / "mixed.txt"), *many) == 0
    (warning,) = report_of(tmp_path / "out")["warnings"]
    assert "of the evaluation text occurs in the calibration text" in warning
    assert "warning: " in capsys.readouterr().out


def test_the_same_options_give_the_same_bits(run: Callable[..., int], tmp_path: Path) -> None:
    # The second run takes its statistics from the cache.
    for name in ("a", "b"):
        assert run(tmp_path / name, "--eval", "none") == 0
    first, second = (report_of(tmp_path / name) for name in ("a", "b"))
    assert (first["calibration"]["passes"], second["calibration"]["passes"]) == (1, 0)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert first["sites"] == second["sites"]


def test_a_cache_that_cannot_be_made_is_said_early(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("ECKART_CACHE", str(tmp_path / "file"))
    assert run(tmp_path / "out") == 2
    assert "set ECKART_CACHE" in capsys.readouterr().err
    assert nothing_left(tmp_path / "out")


def test_names_with_markup_are_shown_as_they_are(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "out", "--include", "[bold]x[/]") == 2
    assert "'[bold]x[/]'" in capsys.readouterr().err


def test_texts_by_name() -> None:
    assert isinstance(text_of("technical"), str)
    with pytest.raises(ValueError, match=r"no text file 'newz', and no text of that name; there are .*news"):
        text_of("newz")
    with pytest.raises(ValueError, match=r"'newz', and no text of that name; there are .*news.*self, mixture"):
        calibration_text("newz")


def test_the_job_in_python(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> None:
    from eckart import Recipe

    phases: list[tuple[str, int, int]] = []
    report = compress_directory(
        str(llama_directory),
        tmp_path / "out",
        Recipe(samples=4, length=32, keep=0.7, of="linear-parameters"),
        Texts(*texts, eval_samples=3, eval_length=32),
        measure_speed=False,
        cache=tmp_path / "cache",
        progress=lambda *t: phases.append(t),
    )
    assert report == report_of(tmp_path / "out")
    assert list(dict.fromkeys(p for p, _, _ in phases)) == ["load", "statistics", "fit", "build", "evaluate"]
    for phase in ("load", "statistics", "fit", "build", "evaluate"):
        steps = [(done, total) for p, done, total in phases if p == phase]
        assert steps[-1][0] == steps[-1][1]
        assert [d for d, _ in steps] == sorted(d for d, _ in steps)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_schema_is_strict(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--eval", "none", "--method", "svd") == 0
    report = report_of(tmp_path / "out")
    for change in (lambda r: r.pop("size"), lambda r: r.update(extra=1), lambda r: r["sites"][0].pop("error")):
        broken = copy.deepcopy(report)
        change(broken)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema())


def test_shares_in_percent(run: Callable[..., int], tmp_path: Path) -> None:
    for name, share in (("a", "70%"), ("b", "0.7")):
        assert run(tmp_path / name, "--method", "svd", "--keep", share, "--eval", "none") == 0
    first, second = (report_of(tmp_path / name) for name in ("a", "b"))
    assert first["requested"] == second["requested"] == {"keep": 0.7, "of": "bytes"}
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_json_is_all_that_is_printed(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "out", "--method", "svd", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == report_of(tmp_path / "out")
    assert "fit: " in shown.err


def test_quiet_and_verbose(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    said = {}
    for option in ("-q", "-v", "--quiet"):
        assert run(tmp_path / option, "--method", "svd", option) == 0
        said[option] = capsys.readouterr()
    assert said["-q"].err == said["--quiet"].err == ""
    assert "linear parameters" in said["-q"].out
    assert "; fit " in said["-v"].err
    assert run(tmp_path / "none", "-q", "--keep", "2") == 2
    assert "eckart: error: keep=2.0" in capsys.readouterr().err


def test_a_fault_shows_where_it_happened(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr("eckart.cli.compress.compress_directory", broken)
    with pytest.raises(ValueError, match="a fault"):
        run(tmp_path / "out")
