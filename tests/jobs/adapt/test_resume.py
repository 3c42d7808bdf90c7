"""An interrupted training goes on with what it began with, or says what changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eckart.errors import Refused
from eckart.jobs.adapt.directory import Request, adapt_directory
from eckart.jobs.learning.checkpoint import CheckpointFile
from eckart.jobs.learning.loop import Training
from support.tiny import TEXT, save_tiny, tiny_llama

WORDS = TEXT.split()


def write_examples(file: Path, count: int, changed: int | None = None) -> None:
    rows = []
    for i in range(count):
        last = "x" if i == changed else WORDS[i + 2]
        rows.append({"prompt": WORDS[i], "response": f"{WORDS[i + 1]} {last}"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def swap_rows(folder: Path) -> None:
    model = tiny_llama()
    weight = model.model.layers[1].mlp.up_proj.weight.data
    weight[[3, 9]] = weight[[9, 3]].clone()
    save_tiny(folder / "model", model)


CHANGES: dict[str, Callable[[Path], None]] = {
    "nothing": lambda folder: None,
    "weights": swap_rows,
    "examples": lambda folder: write_examples(folder / "learn.jsonl", 40, changed=39),
    "validation examples": lambda folder: write_examples(folder / "judge.jsonl", 6, changed=5),
    "text to measure what is forgotten": lambda folder: (folder / "text.txt").write_text(TEXT.upper() * 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_named(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "model")
    write_examples(tmp_path / "learn.jsonl", 40)
    write_examples(tmp_path / "judge.jsonl", 6)
    (tmp_path / "text.txt").write_text(TEXT * 3)
    request = Request(
        str(tmp_path / "learn.jsonl"),
        rank=2,
        validation=str(tmp_path / "judge.jsonl"),
        length=24,
        text=str(tmp_path / "text.txt"),
    )

    def run(resume: bool) -> dict[str, Any]:
        training = Training(steps=6, batch=2, every=2)
        return adapt_directory(str(tmp_path / "model"), tmp_path / "out", request, training, resume=resume)

    write = CheckpointFile.write

    def stop(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointFile, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run(False)
    CHANGES[change](tmp_path)
    if change == "nothing":
        assert len(run(True)["loss"]) == 6
    else:
        with pytest.raises(Refused, match=rf"^the {change} changed since the run in .* was interrupted"):
            run(True)
