"""Training an adapter: data, the plain loop, going on after an interruption, the command line, and the Trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

import eckart
from eckart.cli.app import main
from eckart.errors import Refused
from eckart.files.json import read_json
from eckart.files.tensors import read_safetensors
from eckart.jobs.adapt.train import train
from eckart.jobs.adapt.trainer_callback import AdapterCallback
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.diagnose.directory import diagnose_directory
from eckart.jobs.learning import loop
from eckart.jobs.learning.loop import Order, Training, judged
from eckart.jobs.texts import Texts
from eckart.models.transformers import load_model
from eckart.report import render
from eckart.texts.examples import IGNORED, Example, collate, read_examples
from support.adapting import examples, ids, made
from support.tiny import TEXT, save_tiny, tiny_llama, tiny_tokenizer


def question(number: int) -> dict[str, str]:
    return {"prompt": f"The rank of {number} is", "response": f" {number % 7}."}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(json.dumps(question(i)) for i in range(24)) + "\n")
    return file


def test_prompts_are_not_learned(data: Path) -> None:
    tokenizer = tiny_tokenizer()
    first, *others = read_examples(data, tokenizer, 32)
    assert len(others) == 23
    learned = first.ids[first.labels != IGNORED]
    assert tokenizer.decode(learned[:-1]) == question(0)["response"]
    assert int(learned[-1]) == tokenizer.eos_token_id
    assert tokenizer.decode(first.ids[first.labels == IGNORED]) == question(0)["prompt"]
    batch = collate([first, Example(first.ids[:3], first.labels[:3])], 0)
    assert batch["attention_mask"].sum().item() == len(first.ids) + 3
    assert (batch["labels"][1, 3:] == IGNORED).all()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is no JSON object"),
        ('{"prompt": "a"}', 'neither a string "text" nor strings "prompt" and "response"'),
        (json.dumps({"prompt": "word " * 200, "response": "b"}), "raise --length"),
        ("", "holds no example"),
        ('{"text": ""}', "line 1: nothing to learn in its 1 tokens"),
        ('{"prompt": "", "response": ""}', "line 1: nothing to learn in its 1 tokens"),
        ('{"text": "\\ud800 half"}', "half of a surrogate pair"),
    ],
)
def test_bad_data_is_named(line: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(ValueError, match=words):
        read_examples(file, tiny_tokenizer(), 32)


def test_data_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "wide.jsonl"
    file.write_text('{"text": "a"}\n', encoding="utf-16")
    with pytest.raises(ValueError, match=r"wide.jsonl is not UTF-8"):
        read_examples(file, tiny_tokenizer(), 32)


def test_every_example_is_learned_once_before_any_is_learned_again() -> None:
    order = Order(10, 4, seed=3)
    seen = [i for step in range(5) for i in order.of(step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert Order(10, 4, seed=3).of(3) == order.of(3)


def test_the_best_values_are_kept() -> None:
    model = tiny_llama()
    adapter = eckart.adapt(model, "lora", rank=4)
    # A rate at which the loss soon grows.
    done = train(adapter, examples(), examples(4, seed=1), Training(steps=30, rate=0.5, every=5))
    best = min(loss for _, loss in done.validation)
    assert done.validation[-1][1] > best
    kept = judged(model, examples(4, seed=1), 4, collate)
    assert kept == pytest.approx(best if done.best else done.validation[0][1], rel=1e-5)


@pytest.mark.parametrize("method", eckart.ADAPTERS)
def test_an_interrupted_training_goes_on_to_the_same_end(method: str, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == 3:
            raise Stop

    training, ends = Training(steps=4, every=2, rate=1e-2), []
    for file in (tmp_path / "whole", tmp_path / "stopped"):
        model = made(method)
        arguments = (examples(), examples(4, seed=1), training)
        if file.name == "stopped":
            with pytest.raises(Stop):
                train(
                    eckart.adapt(model, method, rank=2, calibration=ids(8)), *arguments, checkpoint=file, progress=stop
                )
            model = made(method)
        done = train(eckart.adapt(model, method, rank=2, calibration=ids(8)), *arguments, checkpoint=file)
        ends.append((done, {n: p.detach() for n, p in model.named_parameters()}))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(p, ends[1][1][n]) for n, p in ends[0][1].items())


def test_a_loss_that_is_not_finite_stops_and_says_what_the_checkpoint_is_worth(tmp_path: Path) -> None:
    model = tiny_llama()
    adapter = eckart.adapt(model, "lora", rank=2)
    file = tmp_path / "checkpoint"
    training = Training(steps=40, rate=1e30, every=1)
    with pytest.raises(Refused, match=r"of step \d+ is .*lower the rate of 1e\+30.*has the values that gave this"):
        train(adapter, examples(), [], training, checkpoint=file)


@pytest.mark.parametrize("what", ["the gradient of step 2", "the validation loss behind step 2"])
def test_values_that_are_not_finite_are_not_kept(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, file, nan = eckart.adapt(tiny_llama(), "lora", rank=2), tmp_path / "checkpoint", float("nan")
    if "gradient" in what:
        real, count = torch.nn.utils.clip_grad_norm_, iter([1.0, nan])
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *told: real(*told) * next(count))
    else:
        losses = iter([3.0, 2.0, nan])
        monkeypatch.setattr(loop, "judged", lambda *told: next(losses))
    kept = "the values that gave this" if "gradient" in what else "the good values of step 1"
    with pytest.raises(Refused, match=rf"{what} is nan: lower the rate of 0.1; .* has {kept}"):
        train(adapter, examples(), examples(2, seed=1), Training(steps=4, rate=0.1, every=1), checkpoint=file)
    assert len(json.loads(read_safetensors(file)[1]["history"])["losses"]) == 1


def test_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_tiny(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 40)
    arguments = ["adapt", str(source), "--data", str(data), "--method", "pissa", "--rank", "2", "--steps", "6"]
    arguments += ["--length", "32", "--every", "3", "--eval", str(text), "--rate", "0.01"]
    assert main([*arguments, "--resume", "--out", str(tmp_path / "out")]) == 0
    assert "no " + str(tmp_path / "out.partial") + " to go on with" in capsys.readouterr().err
    report = read_json(tmp_path / "out" / "training.json")
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8") == render(report)
    assert len(report["loss"]) == 6
    assert [each["step"] for each in report["validation"]] == [0, 3, 6]
    assert report["forgetting"]["before"] != report["forgetting"]["after"]
    model = tiny_llama()
    adapter = eckart.load_adapter(model, tmp_path / "out")
    assert adapter.method.name == "pissa"
    capsys.readouterr()
    options = ["--text", str(text), "--samples", "16", "--length", "32", "--seed", "0", "--no-speed"]
    assert main(["evaluate", str(tmp_path / "out"), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["base"] == str(source)
    assert result["quality"]["after"]["mean"] == pytest.approx(report["forgetting"]["after"]["perplexity"], rel=1e-5)
    assert main(["compress", str(tmp_path / "out"), "--out", str(tmp_path / "small")]) == 2
    assert "is an adapter and no model: name the model that it is for" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "out"), "--to", "peft", "--out", str(tmp_path / "peft")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "peft"), *options]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["base"] == str(source)
    assert again["quality"]["after"]["mean"] == pytest.approx(result["quality"]["after"]["mean"], rel=1e-4)
    nameless = {**read_json(tmp_path / "peft/adapter_config.json"), "base_model_name_or_path": None}
    (tmp_path / "peft/adapter_config.json").write_text(json.dumps(nameless))
    assert main(["evaluate", str(tmp_path / "peft"), *options]) == 2
    assert "is an adapter and does not name the model that it is for" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "out"), "--to", "peft", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    assert "relative error of the conversion" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "out"), "--to", "peft", "--rank", "0", "--out", str(tmp_path / "none")]) == 2
    capsys.readouterr()
    for model, to, said in (
        (tmp_path / "out", "dense", "export it --to merged first"),
        (tmp_path / "peft", "peft", "in the layout of PEFT already"),
        (tmp_path / "peft", "merged", "does not name the model that it is for"),
        (source, "merged", "is no adapter"),
    ):
        assert main(["export", str(model), "--to", to, "--out", str(tmp_path / "none")]) == 2
        assert said in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert main([*arguments, "--out", str(tmp_path / "other"), "--method", "pisa"]) == 2
    assert not (tmp_path / "other").exists()


def test_the_factors_of_a_compressed_model_from_the_command_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, small = save_tiny(tmp_path / "model"), tmp_path / "small"
    arguments = ["--data", str(data), "--method", "welore", "--steps", "6", "--length", "32", "--rate", "0.01"]
    arguments += ["--eval", "none", "--every", "3"]
    assert main(["adapt", str(source), *arguments, "--out", str(tmp_path / "none")]) == 2
    assert "found no matrix in this model that it can train" in capsys.readouterr().err
    compress_directory(
        str(source), small, eckart.Recipe("welore", keep=0.7, of="linear-parameters"), Texts(evaluation="")
    )
    assert main(["adapt", str(small), *arguments, "--out", str(tmp_path / "out")]) == 0
    report = read_json(tmp_path / "out" / "training.json")
    assert report["validation"][-1]["loss"] < report["validation"][0]["loss"]
    model, _ = load_model(str(small))
    dense = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    adapter = eckart.load_adapter(model, tmp_path / "out")
    assert not set(dense) & set(adapter.places)
    trained = model(ids()).logits.detach()
    assert max(adapter.merge().values()) == 0
    adapter.remove()
    torch.testing.assert_close(model(ids()).logits.detach(), trained)
    assert main(["export", str(tmp_path / "out"), "--to", "peft", "--out", str(tmp_path / "peft")]) == 2


@pytest.mark.parametrize("small", ["", "wanda", "rtn"])
def test_an_adapter_is_merged_from_the_command_line(
    small: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_tiny(tmp_path / "model")
    if small:
        dense, source = source, tmp_path / "small"
        compress_directory(str(dense), source, eckart.Recipe(small, keep=0.5, of="bytes"), Texts(evaluation=""))
    arguments = [
        "--data",
        str(data),
        "--rank",
        "2",
        "--steps",
        "4",
        "--length",
        "32",
        "--rate",
        "0.01",
        "--eval",
        "none",
    ]
    assert main(["adapt", str(source), *arguments, "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    status = main(["export", str(tmp_path / "out"), "--to", "merged", "--out", str(tmp_path / "merged")])
    said = capsys.readouterr().err
    error = float(said.partition("at most ")[2].split()[0])
    assert (status == 3) == ("keep the adapter beside its model" in said) == (error > 0.1) == (small == "rtn")
    beside, merged = (load_model(str(path))[0] for path in (source, tmp_path / "merged"))
    before = beside(ids()).logits.detach()
    eckart.load_adapter(beside, tmp_path / "out")
    changed = torch.linalg.vector_norm(beside(ids()).logits.detach() - before)
    apart = torch.linalg.vector_norm(beside(ids()).logits.detach() - merged(ids()).logits.detach())
    assert apart <= max(10 * error, 1e-4) * changed
    again = main(["export", str(tmp_path / "merged"), "--to", "dense", "--out", str(tmp_path / "dense")])
    assert again == (0 if small else 2)


def test_diagnosing_says_what_merging_lost(data: Path, tmp_path: Path) -> None:
    source, small = save_tiny(tmp_path / "model"), tmp_path / "small"
    compress_directory(str(source), small, eckart.Recipe("rtn", keep=0.5, of="bytes"), Texts(evaluation=""))
    arguments = ["adapt", str(small), "--data", str(data), "--rank", "2", "--steps", "4", "--length", "32"]
    assert main([*arguments, "--eval", "none", "--out", str(tmp_path / "out")]) == 0
    report = diagnose_directory(str(tmp_path / "out"), against=str(small))
    assert any("merging lost up to" in warning for warning in report["warnings"])


def test_the_trainer_of_transformers(tmp_path: Path) -> None:
    model = tiny_llama()
    adapter = eckart.adapt(model, "lora", rank=2)
    before = judged(model, examples(), 4, collate)
    steps = []
    adapter.step, step = lambda: steps.append(step()), adapter.step  # type: ignore[method-assign]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=8, learning_rate=1e-2, per_device_train_batch_size=4, report_to=[], use_cpu=True
    )
    rows = [{"input_ids": e.ids, "labels": e.labels} for e in examples()]
    Trainer(model, arguments, train_dataset=rows, callbacks=[AdapterCallback(adapter)]).train()  # type: ignore[arg-type]
    assert len(steps) == 8
    assert judged(model, examples(), 4, collate) < before
