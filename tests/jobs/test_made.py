"""What a job writes it can prove to be its own: every file of every job, while it is still where it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eckart.cli.app import main
from eckart.files import directories
from eckart.files.made import foreign
from eckart.jobs import workspace
from support.commands import SMALL
from support.directories import save_data, save_zoo


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """By the name of each directory that got its place: what in it nobody could have proved to be eckart's."""
    found: dict[str, Any] = {}
    original = directories.publish

    def publish(partial: Path, target: Path) -> None:
        found[target.name] = foreign(partial)
        original(partial, target)

    for module in (directories, workspace):
        monkeypatch.setattr(module, "publish", publish)
    return found


def test_every_job(
    published: dict[str, Any], tmp_path: Path, llama_directory: Path, texts: tuple[str, str], capsys: Any
) -> None:
    model, given = str(llama_directory), ["--calibration", texts[0], "--eval", texts[1], *SMALL, "-q"]

    def run(command: str, source: str, name: str, *options: str) -> str:
        assert main([command, source, "--out", str(tmp_path / name), *options]) == 0, capsys.readouterr().err
        return str(tmp_path / name)

    small = run("compress", model, "small", "--method", "kfac", "--no-speed", *given)
    run("compress", model, "healed", "--heal", "1", "--no-speed", *given)
    rounded = run("compress", model, "rounded", "--method", "magnitude", "--no-speed", *given)
    helped = run("compensate", rounded, "helped", "--against", model, "--rank", "1", *given)
    learn = ["--data", texts[0], "--length", "16", "--steps", "1", "-q", "--eval", "none"]
    adapter = run("adapt", model, "adapter", "--method", "lora", "--rank", "2", *learn)
    run("diagnose", small, "told", "--text", texts[1], "--samples", "2", "--length", "16", "-q")
    run("export", small, "dense", "--to", "dense")
    run("export", helped, "branches", "--to", "peft")
    run("export", adapter, "lora", "--to", "peft")
    assert published == dict.fromkeys(
        ("small", "healed", "rounded", "helped", "adapter", "told", "dense", "branches", "lora")
    )


@pytest.mark.parametrize(("name", "kind"), [("Whisper", "sounds"), ("CLIP", "captions"), ("ViT", "images")])
def test_every_processor(name: str, kind: str, published: dict[str, Any], tmp_path: Path) -> None:
    model, data = save_zoo(name, tmp_path / "m"), save_data(kind, tmp_path / "data", 1)
    words = ["--method", "svd", "--calibration", data, "--eval", "none", "--no-speed", "-q", "--samples", "4"]
    assert main(["compress", str(model), "--out", str(tmp_path / "out"), *words]) == 0
    assert published == {"out": None}


def test_what_no_job_writes_is_seen(published: dict[str, Any], tmp_path: Path) -> None:
    with directories.new_directory(tmp_path / "out") as output:
        (output / "somebody.txt").write_text("x")
    assert published["out"].endswith("somebody.txt")
