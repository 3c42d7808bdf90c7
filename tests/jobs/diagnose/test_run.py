"""Diagnosis: the job and its command."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.cli.app import main
from eckart.files.lock import locked
from eckart.jobs.compress.trials import held_back
from eckart.jobs.diagnose.report import diagnosis_schema
from eckart.jobs.evaluate.quality import evaluate
from support.changes import planted
from support.tiny import save_tiny, tiny_llama


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(80, 64), nn.Linear(64, 70), nn.ReLU(), nn.Linear(70, 8), nn.Linear(8, 64))


def test_bad_matrices_are_rows_with_notes() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight.zero_()
        net[1].weight.fill_(0.5)
        net[4].weight[1, 2] = math.nan
    found = eckart.diagnose(net, against=network())
    zero, constant, small, broken = found.rows
    assert "all entries are zero" in zero["notes"]
    assert "not compared: a zero matrix has no singular vectors" in zero["notes"]
    assert constant["matrix_rank"] == 1
    assert any("fit needs 50 values that are not zero, there are 1" in note for note in constant["notes"])
    assert any("there are 8" in note for note in small["notes"])
    assert broken["notes"][0] == "NaN or Inf entries"
    for row in found.rows:
        assert "alpha" not in row
    assert found.warnings == ["1 matrices hold NaN or Inf, 4 among them"]
    json.dumps(found.rows, allow_nan=False)


def test_models_that_do_not_match() -> None:
    net, wider, shorter = network(), network(), network()[:2]
    wider[3], wider[4] = nn.Linear(70, 9), nn.Linear(9, 64)
    with pytest.raises(ValueError, match=r"do not match: 3 is \(8, 70\) in one and \(9, 70\) in the other"):
        eckart.diagnose(net, against=wider)
    with pytest.raises(ValueError, match="the other one has no matrix 3, nor 1 more"):
        eckart.diagnose(net, against=shorter)
    assert len(eckart.diagnose(net, against=wider, exclude=["3", "4"]).rows) == 2


def test_a_compressed_model_is_looked_at_as_what_it_computes() -> None:
    model = tiny_llama()
    small = copy.deepcopy(model)
    eckart.compress(small, "svd", keep=0.6, of="linear-parameters")
    found = eckart.diagnose(small, against=model)
    dense = {row["name"]: row for row in eckart.diagnose(model).rows}
    assert list(dense) == [row["name"] for row in found.rows]
    ranks = [m.structure.operands()[0].shape[1] for m in small.modules() if isinstance(m, eckart.StructuredLinear)]
    numerical = [
        int((torch.tensor(row["singular_values"]) > 1e-5 * row["sv_max"]).sum())
        for row in found.rows
        if row["moved"] > 0
    ]
    assert numerical == ranks
    for row in found.rows:
        lost = 1 - (row["norm"] / dense[row["name"]]["norm"])
        assert row["moved"] ** 2 == pytest.approx(lost, abs=1e-5)


def test_mitigation_of_a_model() -> None:
    base = nn.Sequential(nn.Linear(40, 60, bias=False), nn.Linear(60, 5))
    tuned = copy.deepcopy(base)
    before, after = planted(2)
    with torch.no_grad():
        base[0].weight.copy_(before)
        tuned[0].weight.copy_(after)
    rest = tuned[1].weight.clone()
    assert eckart.mitigate_intruders(tuned, base, 0.0) == {"0": 2, "1": 0}
    torch.testing.assert_close(tuned[0].weight.detach().double(), before, atol=1e-4, rtol=0)
    assert torch.equal(tuned[1].weight, rest)


def test_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = eckart.diagnose(network()).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["N"]) == [80, 70, 70, 64]


def diagnosis_of(directory: Path) -> dict[str, object]:
    report: dict[str, object] = json.loads((directory / "diagnosis.json").read_text())
    jsonschema.validate(report, diagnosis_schema(), jsonschema.Draft202012Validator)
    return report


def test_command(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = save_tiny(tmp_path / "tuned", tiny_llama(seed=1))
    out = tmp_path / "out"
    given = ["--text", texts[0], "--samples", "9", "--length", "24", "--measure", "0.6,0.9", "--out", str(out)]
    assert main(["diagnose", str(tuned), "--against", str(llama_directory), *given]) == 0
    report = diagnosis_of(out)
    rows = report["matrices"]
    assert len(rows) == 15
    assert rows[0]["layer_type"] == "embedding"
    assert "curve" not in rows[0]
    for row in rows[1:]:
        curve = row["curve"]
        assert len({len(values) for values in curve.values()}) == 1
        assert curve["predicted_kl"] == sorted(curve["predicted_kl"], reverse=True)
        assert (curve["parameters"][-1], curve["predicted_kl"][-1]) == (math.prod(row["shape"]), 0)
        assert row["moved"] > 1
        assert 0 <= row["intruders"] <= 10
    assert [row["layer"] for row in report["hidden_states"]] == [0, 1, 2]
    assert report["text"] == {"name": texts[0], "tokens": 216}
    assert [row["keep"] for row in report["measured"]] == [0.9, 0.6]
    shown = capsys.readouterr().out
    assert "rise of the loss, on 23 tokens held back" in shown
    for row in report["measured"]:
        words = f"{row['keep']:.1%} {row['predicted_kl']:.3g} {row['kl']:.3g}".split()
        assert any(line.replace("│", " ").split()[:3] == words for line in shown.splitlines())
    tightest = min(rows, key=lambda row: row["stable_rank"])
    assert re.search(rf"stable rank +│ +{tightest['stable_rank']:.3g} │ {tightest['name'][:12]}", shown)
    halves = []
    for row in rows[1:]:
        at = max(i for i, size in enumerate(row["curve"]["parameters"]) if 2 * size <= math.prod(row["shape"]))
        halves.append((row["curve"]["predicted_kl"][at], row["name"]))
    assert re.search(rf"cut in half +│ +{min(halves)[0]:.3g} │ {min(halves)[1][:12]}", shown)
    assert "intruders" in shown
    assert "matrix nuclear norm" in shown
    assert main(["diagnose", str(tuned), "--out", str(out)]) == 2


def test_command_refuses(llama_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    out = str(tmp_path / "out")
    for arguments, message in (
        ([str(tmp_path / "adapter")], "name its base with --against"),
        ([str(tmp_path / "adapter"), "--against", str(llama_directory)], "only LORA can be read"),
        ([str(llama_directory), "--include", "nothing"], "matches no matrix"),
        ([str(llama_directory), "--text", "no such text"], "no text file"),
        ([str(llama_directory), "--text", "news", "--length", "1"], "length=1"),
        ([str(llama_directory), "--measure", "0.5"], "there is no text to measure on: name one with --text"),
        (
            [str(llama_directory), "--text", "news", "--measure", "0.5;0.7"],
            "--measure 0.5;0.7: a share is needed",
        ),
    ):
        assert main(["diagnose", *arguments, "--out", out]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not Path(out).exists()


def test_two_runs_do_not_make_one_directory(
    llama_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "out"):
        assert main(["diagnose", str(llama_directory), "--out", str(tmp_path / "out")]) == 2
    assert f"process {os.getpid()}" in capsys.readouterr().err
    assert main(["diagnose", str(llama_directory), "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["diagnosis.json", "report.html"]


def test_an_adapter_is_compared_with_its_base(llama_directory: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    peft.get_peft_model(tiny_llama(), config).save_pretrained(tmp_path / "adapter")
    arguments = [str(tmp_path / "adapter"), "--against", str(llama_directory), "--out", str(tmp_path / "out")]
    assert main(["diagnose", *arguments]) == 0
    for row in diagnosis_of(tmp_path / "out")["matrices"]:
        adapted = row["name"].endswith(("q_proj", "up_proj"))
        assert row["difference_rank"] == (2 if adapted else 0), row["name"]


def test_intruders_of_an_adapter_of_our_own(llama_directory: Path, tmp_path: Path) -> None:
    model = tiny_llama()
    planted_in = "model.layers.0.mlp.up_proj"
    base = model.get_submodule(planted_in).weight.detach().double()
    left, values, right = torch.linalg.svd(base)
    adapter = eckart.adapt(model, "lora", rank=2)
    with torch.no_grad():
        b, a = adapter.places[planted_in].path().parameters()
        # Outputs that the base never has, of inputs that it hardly sees: nothing else turns.
        b.copy_(3 * values[0] * left[:, -2:])
        a.copy_(right[-2:])
    eckart.save_adapter(adapter, tmp_path / "adapter")
    arguments = [str(tmp_path / "adapter"), "--against", str(llama_directory), "--out", str(tmp_path / "out")]
    assert main(["diagnose", *arguments]) == 0
    for row in diagnosis_of(tmp_path / "out")["matrices"]:
        count = 2 if row["name"] == planted_in else 0
        assert (row["intruders"], row["difference_rank"]) == (count, count), row["name"]
        assert (row["moved"] > 0) == bool(count)
    assert main(["diagnose", str(tmp_path / "adapter")]) == 2


def tokens_of(count: int) -> Tensor:
    return torch.randint(300, (count, 48), generator=torch.Generator().manual_seed(1))


def test_what_is_measured_is_what_compress_makes() -> None:
    tokens = tokens_of(17)
    (kept,), back = held_back([tokens])
    model = tiny_llama()
    before = copy.deepcopy(model.state_dict())
    found = eckart.diagnose(model, tokens=tokens, measure=[0.5, 0.8, 0.5])
    assert [row["keep"] for row in found.measured] == [0.8, 0.5]
    for row in found.measured:
        small = tiny_llama()
        result = eckart.compress(small, "kfac", keep=row["keep"], of="linear-parameters", calibration=kept)
        alone = evaluate(small, back, tiny_llama())
        assert row["of"] == "linear-parameters"
        assert row["predicted_kl"] == pytest.approx(result.error / 2, rel=1e-5)
        assert row["kl"] == pytest.approx(alone.kl, rel=1e-4)
        assert row["perplexity"]["after"] == pytest.approx(alone.perplexity, rel=1e-4)
        assert row["perplexity"]["before"] == pytest.approx(alone.reference.perplexity, rel=1e-5)
        assert row["tokens"] == alone.tokens == 2 * 47
    # What is measured on is unseen by the curves, and the model is as it was.
    assert found.rows[1]["curve"] == eckart.diagnose(model, tokens=kept).rows[1]["curve"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_measuring_refuses() -> None:
    for given, message in (
        ({"tokens": tokens_of(7), "measure": [0.5]}, "one sequence in 8 is held back to measure on: 7 are too few"),
        ({"measure": [0.5]}, "there is no text to measure on"),
        ({"tokens": tokens_of(8), "measure": [0.5, 1.5]}, r"measure=1\.5 is not in \(0, 1\]"),
        ({"tokens": tokens_of(8), "measure": [0.001]}, r"keep=0\.001 of linear-parameters cannot be met"),
        ({"tokens": tokens_of(8), "measure": [0.5], "include": ["embed_tokens"]}, "there is nothing to measure"),
    ):
        with pytest.raises(ValueError, match=message):
            eckart.diagnose(tiny_llama(), **given)
