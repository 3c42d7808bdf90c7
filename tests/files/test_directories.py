"""Directories that appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from eckart.errors import Refused
from eckart.files.directories import begin_partial, new_directory, partial_path
from eckart.files.json import read_json, write_json
from eckart.files.made import FINISHED, MARK, OUTPUT, STATE
from eckart.jobs.workspace import workspace


def left_by_a_kill(target: Path, **state: object) -> Path:
    """What a process leaves that is killed while it fills a directory."""
    output = begin_partial(partial_path(target), {"resumable": False, **state})
    (output / "config.json").write_text("half")
    (output / "model.safetensors.0123abcd.tmp").touch()
    return output.parent


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    left_by_a_kill(tmp_path / "out")
    with new_directory(tmp_path / "out") as partial:
        assert not list(partial.iterdir())
        (partial / "config.json").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_an_interrupted_run_is_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / STATE).write_text('{"model": "m"}')
    with pytest.raises(Refused, match="finish it with its own command and --resume"), new_directory(tmp_path / "out"):
        pytest.fail("it was thrown away")
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


def test_two_cannot_make_the_same_directory(tmp_path: Path) -> None:
    second = new_directory(tmp_path / "out")
    with new_directory(tmp_path / "out"), pytest.raises(Refused, match=r"out is being made by process"), second:
        pytest.fail("both make it")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with new_directory(tmp_path / "out") as partial:
            (partial / "config.json").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())


def thesis(directory: Path) -> None:
    (directory / "thesis.txt").write_text("years")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "in a directory of their own": lambda partial: (partial.mkdir(), thesis(partial)),
    "with a file that looks like ours": lambda partial: (partial.mkdir(), (partial / "config.json").write_text("mine")),
    "with a state of their own": lambda partial: (
        partial.mkdir(),
        (partial / STATE).write_text('{"maker": "me"}'),
        thesis(partial),
    ),
    "in a directory like ours": lambda partial: (
        (partial / OUTPUT).mkdir(parents=True),
        (partial / OUTPUT / "config.json").write_text("mine"),
    ),
    "beside ours": lambda partial: thesis(left_by_a_kill(partial.with_name("out"))),
    "among ours": lambda partial: thesis(left_by_a_kill(partial.with_name("out")) / OUTPUT),
    "deep among ours": lambda partial: (
        (left_by_a_kill(partial.with_name("out")) / OUTPUT / "sub").mkdir(),
        thesis(partial / OUTPUT / "sub"),
    ),
    "a directory with one of our names": lambda partial: (
        (left_by_a_kill(partial.with_name("out")) / OUTPUT / "report.json").mkdir(),
        thesis(partial / OUTPUT / "report.json"),
    ),
    "among what is finished": lambda partial: (
        (left_by_a_kill(partial.with_name("out")) / FINISHED).mkdir(),
        save_file({"a": torch.ones(1)}, partial / FINISHED / "mine.safetensors"),
    ),
    "through a link": lambda partial: (
        partial.with_name("real").mkdir(),
        thesis(partial.with_name("real")),
        partial.symlink_to(partial.with_name("real")),
    ),
    "through a link to one of ours": lambda partial: (
        left_by_a_kill(partial.with_name("real")).rename(partial.with_name("elsewhere")),
        partial.symlink_to(partial.with_name("elsewhere")),
    ),
    "through a link among ours": lambda partial: (
        partial.with_name("real").mkdir(),
        thesis(partial.with_name("real")),
        (left_by_a_kill(partial.with_name("out")) / OUTPUT / "config.json").unlink(),
        (partial / OUTPUT / "config.json").symlink_to(partial.with_name("real") / "thesis.txt"),
    ),
    "a file": lambda partial: partial.write_text("mine"),
    "a link to nothing": lambda partial: partial.symlink_to(partial.with_name("nothing")),
}


def contents(directory: Path) -> dict[str, object]:
    return {
        str(path.relative_to(directory)): (path.is_symlink(), path.read_bytes() if path.is_file() else None)
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("door", ["new_directory", "workspace", "resumed", "fresh"])
def test_what_others_made_is_never_removed(door: str, how: str, tmp_path: Path) -> None:
    FOREIGN[how](tmp_path / "out.partial")
    before = contents(tmp_path)
    out = tmp_path / "out"
    doors = {
        "new_directory": lambda: new_directory(out),
        "workspace": lambda: workspace(out),
        "resumed": lambda: workspace(out, {"model": "m"}, resume=True),
        "fresh": lambda: workspace(out, {"model": "m"}),
    }
    with pytest.raises(Refused, match=r"(is in the way: .*; move it elsewhere|cannot be read as JSON)"), doors[door]():
        pytest.fail("it began")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, Refused])
def test_what_comes_in_while_a_job_runs_stays(error: type[BaseException] | None, tmp_path: Path) -> None:
    def job() -> None:
        with new_directory(tmp_path / "out") as output:
            (output / "config.json").touch()
            thesis(output.parent)
            thesis(output)
            if error is not None:
                raise error("stopped")

    with nullcontext() if error is None else pytest.raises(error):
        job()
    assert [path.read_text() for path in tmp_path.rglob("thesis.txt")] == ["years", "years"]
    assert (tmp_path / "out").exists() == (error is None)
    assert not (tmp_path / "out.partial" / OUTPUT / "config.json").exists()


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    with new_directory(tmp_path / "out") as output:
        (output / "config.json").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("length", [0, 5, 30])
def test_a_kill_while_the_state_is_written(length: int, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    text = json.dumps({"maker": MARK, "resumable": False}, indent=1)
    (partial / f"{STATE}.0123abcd.tmp").write_text(text[:length])
    with new_directory(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_is_written_takes_no_name_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.json.tmp").write_text("mine")
    write_json({"a": 1}, tmp_path / "a.json")
    assert (tmp_path / "a.json.tmp").read_text() == "mine"
    with pytest.raises(FileExistsError, match="exists by now"):
        write_json({"a": 2}, tmp_path / "a.json", new=True)
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 2


SENTENCES = ["modules.json", "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "additional_chat_templates/a.jinja"]
ADAPTERS = ["adapter.json", "adapter.safetensors", "adapter_config.json", "adapter_model.safetensors", "training.json"]
MODELS = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "eckart.json", "spiece.model"]


@pytest.mark.parametrize("name", [*SENTENCES, *ADAPTERS, *MODELS])
def test_what_a_kill_leaves_is_known_by_its_name(name: str, tmp_path: Path) -> None:
    file = left_by_a_kill(tmp_path / "out") / OUTPUT / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with new_directory(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
