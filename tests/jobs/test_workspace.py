"""Where jobs make their directories: whole or absent, resumed or refused, one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from eckart.cli.app import main
from eckart.errors import Refused
from eckart.files.directories import begin_partial, new_directory
from eckart.files.made import OUTPUT, STORED
from eckart.files.tensors import write_safetensors
from eckart.jobs.workspace import FORMAT, Workspace, workspace
from support.commands import SMALL, report_of

REQUEST = {"model": "m", "options": {"keep": 0.5, "seed": 0}}
INPUTS = {"weights": "a", "calibration text": "b"}
HOLD = """
import sys
from eckart.jobs.workspace import workspace
with workspace(sys.argv[1], {"model": "m"}) as work:
    print("held", flush=True)
    sys.stdin.read()
"""


def begun(out: Path, error: type[BaseException], finish: bool = False) -> None:
    """A job that ends by an error after it began, with a finished part or without."""

    def job() -> None:
        with workspace(out, REQUEST) as work:
            (work.begin(INPUTS) / "config.json").touch()
            if finish:
                finished(work)
            raise error

    with pytest.raises(error):
        job()


def finished(work: Workspace) -> None:
    write_safetensors({"x": torch.ones(1)}, work.finished / "a.safetensors", {STORED: "0"})


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_what_is_whole_appears_at_once(tmp_path: Path) -> None:
    with workspace(tmp_path / "out", REQUEST) as work:
        work.lap("load")
        (work.begin(INPUTS) / "config.json").touch()
        finished(work)
        assert names(tmp_path) == [
            "out.lock",
            "out.partial",
            "out.partial/finished",
            "out.partial/finished/a.safetensors",
            "out.partial/job.json",
            "out.partial/output",
            "out.partial/output/config.json",
        ]
    assert names(tmp_path) == ["out", "out/config.json"]
    assert list(work.lap.seconds) == ["load"]


def test_a_job_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    with workspace(tmp_path / "deep" / "out", REQUEST):
        pass
    with pytest.raises(KeyboardInterrupt), workspace(tmp_path / "out"):
        raise KeyboardInterrupt
    assert not names(tmp_path)


def test_a_job_that_cannot_be_resumed_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with workspace(tmp_path / "out") as work:
            (work.begin() / "config.json").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not names(tmp_path)
    (begin_partial(tmp_path / "out.partial", {"resumable": False}) / "config.json").touch()  # as a kill leaves it
    with workspace(tmp_path / "out") as work:
        (work.begin() / "config.json").touch()
    assert names(tmp_path) == ["out", "out/config.json"]


@pytest.mark.parametrize(
    ("error", "finish", "kept"),
    [
        (Refused, False, False),
        (Refused, True, True),
        (KeyboardInterrupt, False, True),
        (OSError, False, True),
        (TypeError, True, True),
    ],
)
def test_what_an_error_leaves(error: type[BaseException], finish: bool, kept: bool, tmp_path: Path) -> None:
    begun(tmp_path / "out", error, finish)
    assert (tmp_path / "out.partial").exists() == kept
    assert not (tmp_path / "out.lock").exists()
    if kept:
        again = workspace(tmp_path / "out", REQUEST)
        with pytest.raises(Refused, match="holds an interrupted run: go on with --resume"), again:
            pytest.fail("it began anew")
        with workspace(tmp_path / "out", REQUEST, resume=True) as work:
            work.begin(INPUTS)
            assert [path.name for path in work.finished.iterdir()] == ["a.safetensors"] * finish
            assert not list((work.partial / OUTPUT).iterdir())
        assert names(tmp_path) == ["out"]


def test_another_request_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    begun(tmp_path / "out", KeyboardInterrupt)
    before = names(tmp_path)
    other = {**REQUEST, "options": {"keep": 0.6, "seed": 0}}
    again = workspace(tmp_path / "out", other, resume=True)
    with pytest.raises(Refused, match=r"was for keep=0.5, not keep=0.6: repeat its options"), again:
        pytest.fail("it went on")
    with (
        pytest.raises(Refused, match="the weights changed since the run in"),
        workspace(tmp_path / "out", REQUEST, resume=True) as work,
    ):
        work.begin({**INPUTS, "weights": "b"})
    for refusing in (workspace(tmp_path / "out"), new_directory(tmp_path / "out")):
        with pytest.raises(Refused, match=r"finish it with its own command and --resume"), refusing:
            pytest.fail("an interrupted run was thrown away")
    assert names(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("state", [{"model": "m", "inputs": "f"}, {"format": FORMAT + 1, "model": "m"}])
def test_a_run_of_another_version_is_refused_by_name(state: dict[str, Any], resume: bool, tmp_path: Path) -> None:
    """0.1.0 wrote no format, and its finished groups lie in sites/."""
    partial = tmp_path / "out.partial"
    (partial / "sites").mkdir(parents=True)
    (partial / "sites" / "a.safetensors").touch()
    (partial / "job.json").write_text(json.dumps(state))
    before = names(tmp_path)
    found = workspace(tmp_path / "out", REQUEST, resume)
    with pytest.raises(Refused, match=r"out\.partial holds a run in which another version of eckart was"), found:
        pytest.fail("it was taken for one of this version")
    assert names(tmp_path) == before


@pytest.fixture
def command(texts: tuple[str, str], llama_directory: Path, tmp_path: Path) -> list[str]:
    given = ["--calibration", texts[0], "--eval", "none", "--no-speed", "--method", "svd", *SMALL]
    return ["compress", str(llama_directory), "--out", str(tmp_path / "out"), *given]


def holder(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_at_once(command: list[str], tmp_path: Path, capsys: Any) -> None:
    process = holder(tmp_path / "out")
    started = time.perf_counter()
    assert main(command) == 2
    assert main([*command, "--resume"]) == 2
    assert time.perf_counter() - started < 5
    shown = capsys.readouterr().err.replace("\n", "")
    assert shown.count(f"is being made by process {process.pid} on ") == 2
    process.communicate()
    assert main(command) == 0
    report_of(tmp_path / "out")


def test_a_killed_process_does_not_block_the_next(command: list[str], tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert names(tmp_path) == ["out.lock"]
    assert main(command) == 0
    assert sorted(os.listdir(tmp_path)) == ["out"]
