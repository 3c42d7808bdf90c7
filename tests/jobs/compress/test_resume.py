"""Interrupted runs: killed at any step, by the system or by the user, and completed to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import eckart
from eckart.cli.app import main
from eckart.cli.progress_bars import Bars
from eckart.compressors._low_rank import LowRank
from eckart.jobs.compress.store import DirectoryStore
from support.commands import SMALL, in_child, prose, report_of
from support.tiny import save_tiny, tiny_llama

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}

Arguments = Callable[..., list[str]]


def command_of(texts: tuple[str, str], model: Path, out: Path, *options: str) -> list[str]:
    given = ["--calibration", texts[0], "--eval", texts[1], "--no-speed", *SMALL]
    return ["compress", str(model), "--out", str(out), *given, *options]


@pytest.fixture(scope="module")
def arguments(texts: tuple[str, str], llama_directory: Path) -> Arguments:
    return partial(command_of, texts, llama_directory)


def watched(inside: Path, act: Callable[[int, str], None]) -> None:
    """Calls `act` before each change to a file below a directory that Python makes in this process, from now on."""
    count = 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or writes) and str(values[0]).startswith(str(inside)):
            act(count, f"{event} {values[0]}")
            count += 1

    sys.addaudithook(hook)


def steps_of(command: list[str], inside: Path, log: Path) -> list[str]:
    """Runs a command in a child to its end; returns the changes it made to files, in order."""

    def run() -> int:
        steps: list[str] = []
        watched(inside, lambda _, step: steps.append(step))
        code = main(command)
        log.write_text(json.dumps(steps))
        return code

    assert in_child(run) == 0
    found: list[str] = json.loads(log.read_text())
    return found


def stopped(command: list[str], inside: Path, step: int, sign: signal.Signals) -> int:
    """Runs a command in a child that gets a signal just before a change to a file; returns its exit status."""

    def run() -> int:
        # A job in the background of a script inherits that Ctrl-C is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        watched(inside, lambda i, _: os.kill(os.getpid(), sign) if i == step else None)
        return main(command)

    return in_child(run)


def same(a: Path, b: Path) -> None:
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())
    assert list(a.glob("model*.safetensors"))
    for name in [p.name for p in a.glob("model*.safetensors*")] + ["config.json", "tokenizer.json"]:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    first, second = report_of(a), report_of(b)
    for report in (first, second):  # how much memory a process took is another time's matter
        report["warnings"] = [text for text in report["warnings"] if not text.startswith("the run took")]
    for part in ("sites", "size", "quality", "requested", "warnings"):
        assert first[part] == second[part], part


@dataclass(frozen=True)
class Whole:
    """A run that came to its end, in `inside/out`, and the changes that it made to files."""

    inside: Path
    steps: list[str]

    @property
    def out(self) -> Path:
        return self.inside / "out"


@pytest.fixture(scope="module")
def whole(
    texts: tuple[str, str], llama_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Whole]:
    """The whole run with some options, made once. Not to be changed."""
    made: dict[tuple[str, ...], Whole] = {}

    def run(*options: str) -> Whole:
        if options not in made:
            inside = tmp_path_factory.mktemp("whole")
            command = command_of(texts, llama_directory, inside / "out", *options)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ECKART_CACHE", str(inside / "cache"))
                made[options] = Whole(inside, steps_of(command, inside, inside / "log.json"))
        return made[options]

    return run


OPTIONS = {
    "auto": [],
    "gptq": ["--method", "gptq", "--of", "bytes", "--keep", "0.5", "--eval", "none", "--head"],
    "sequential": ["--sequential", "--eval", "none", "--include", "model.layers.0.*"],
    "heal": ["--heal", "3", "--eval", "none", "--include", "model.layers.1.*"],
    "max loss": ["--max-loss", "0.3", "--include", "model.layers.1.*"],
    "blocks": ["--method", "kfac", "--keep", "0.8", "--eval", "none", "--memory", "0.0001", "--head"],
    "blocks in one pass": ["--method", "gptq", "--bits", "4", "--eval", "none", "--memory", "0.0001"],
}


@pytest.mark.parametrize("case", OPTIONS)
def test_killed_at_any_step(
    case: str,
    whole: Callable[..., Whole],
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    done = whole(*OPTIONS[case])
    first, steps = done.out, done.steps
    renames = [i for i, step in enumerate(steps) if step.startswith("os.rename")]
    targets = [Path(steps[i].split()[1]).name for i in renames]
    assert any("cache" in steps[i] for i in renames) != case.startswith("blocks")
    assert any(name.startswith("job.json") for name in targets)
    assert any("/finished/" in steps[i] for i in renames)
    assert targets[-1] == "output"
    # Every kind of step for one case, and a few for the others.
    several = {*renames[:3], *renames[5:-5:18], *renames[-5:], len(steps) - 2}
    chosen = sorted(several) if case == "auto" else [renames[len(renames) // 2], renames[-2]]
    if case == "blocks in one pass":
        chosen = chosen[:1]
    if case == "blocks":  # while it goes back, and while it writes
        kinds = ("gradient-", "model-")
        chosen = [next(i for i in renames if Path(steps[i].split()[1]).name.startswith(kind)) + 1 for kind in kinds]
    for step in chosen:
        inside = tmp_path / f"killed-{step}"
        out = inside / "out"
        monkeypatch.setenv("ECKART_CACHE", str(inside / "cache"))
        command = arguments(out, *OPTIONS[case])
        assert stopped(command, inside, step, signal.SIGKILL) == -signal.SIGKILL, steps[step]
        assert out.exists() == (step > renames[-1]), steps[step]
        if out.exists():  # whole, and only its lock was left
            same(out, first)
            shutil.rmtree(out)
        if (out.with_name("out.partial") / "job.json").exists():
            assert main(command) == 2
            assert "holds an interrupted run" in capfd.readouterr().err
        assert main([*command, "--resume"]) == 0, steps[step]
        same(out, first)
        assert not [p for p in inside.rglob("*") if "partial" in p.name], steps[step]


@pytest.mark.parametrize("where", ["cache/", "finished/", "config.json", "report.json"])
def test_interrupted_by_the_user(
    where: str,
    whole: Callable[..., Whole],
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    first = whole()
    step = next(i for i, s in enumerate(first.steps) if where in s.replace(str(first.inside), ""))
    monkeypatch.setenv("ECKART_CACHE", str(tmp_path / "second" / "cache"))
    out = tmp_path / "second" / "out"
    capfd.readouterr()
    assert stopped(arguments(out), tmp_path / "second", step, signal.SIGINT) == 130
    shown = capfd.readouterr().err
    assert "eckart: interrupted; run the same command with --resume to go on" in shown
    assert "Traceback" not in shown
    assert not out.exists()
    assert main([*arguments(out), "--resume"]) == 0
    same(out, first.out)


PHASES = {
    "load": [],
    "write text": ["--calibration", "self"],
    "statistics": [],
    "fit": [],
    "search": ["--max-loss", "0.3"],
    "build": [],
    "sequential": ["--sequential"],
    "heal": ["--heal", "3"],
    "evaluate": [],
    "speed": [],
}


@pytest.mark.parametrize("phase", PHASES)
def test_stopped_within_a_phase(
    phase: str,
    whole: Callable[..., Whole],
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def command(name: str) -> list[str]:
        monkeypatch.setenv("ECKART_CACHE", str(tmp_path / name / "cache"))
        made = arguments(tmp_path / name / "out", *PHASES[phase])
        if phase == "speed":
            made.remove("--no-speed")
        return made

    def run(sign: signal.Signals) -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        told = Bars.__call__

        def tell(bars: Bars, name: str, done: int, total: int) -> None:
            told(bars, name, done, total)
            if name == phase and 2 * done >= total:
                os.kill(os.getpid(), sign)

        monkeypatch.setattr(Bars, "__call__", tell)
        return main(command(sign.name))

    if phase == "speed":
        assert main(command("first")) == 0
    first = tmp_path / "first" / "out" if phase == "speed" else whole(*PHASES[phase]).out
    capfd.readouterr()
    signs = [(signal.SIGINT, 130)]
    if phase in ("statistics", "fit", "build"):  # at every step of the files: test_killed_at_any_step
        signs.append((signal.SIGKILL, -signal.SIGKILL))
    for sign, status in signs:
        out = tmp_path / sign.name / "out"
        assert in_child(lambda sign=sign: run(sign)) == status  # type: ignore[misc]
        shown = capfd.readouterr().err
        assert "Traceback" not in shown
        assert ("eckart: interrupted" in shown) == (sign == signal.SIGINT)
        assert not out.exists()
        assert main([*command(sign.name), "--resume"]) == 0
        same(out, first)
        assert sorted(os.listdir(out.parent)) == ["cache", "out"]


def test_finished_sites_are_not_fitted_again(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "run"
    monkeypatch.setenv("ECKART_CACHE", str(tmp_path / "cache"))
    command = arguments(inside / "out", "--method", "svd", "--eval", "none")
    built: list[int] = []
    build = LowRank.build
    monkeypatch.setattr(LowRank, "build", lambda self, size: built.append(size) or build(self, size))
    first = tmp_path / "first" / "out"
    steps = steps_of(arguments(first, "--method", "svd", "--eval", "none"), tmp_path / "first", tmp_path / "log.json")
    sites = [i for i, step in enumerate(steps) if step.startswith("os.rename") and "/finished/" in step]
    assert len(sites) == 14
    assert stopped(command, inside, sites[9], signal.SIGKILL) == -signal.SIGKILL
    done = sorted((inside / "out.partial" / "finished").glob("*.safetensors"))
    assert len(done) == 9
    # One of them is cut short, and one is of another size: both are made again.
    done[0].write_bytes(done[0].read_bytes()[:-9])
    store = DirectoryStore(done[1].parent)
    name = done[1].name.removesuffix(".safetensors")
    size = report_of_site(first, name)["rank"]
    found = store.get(name, size)
    assert found is not None
    assert store.get(name, size + 1) is None
    store.put(name, size + 1, found)
    assert store.get(name, size) is None
    assert main([*command, "--resume"]) == 0
    assert len(built) == 14 - 9 + 2
    same(inside / "out", first)


def report_of_site(directory: Path, name: str) -> dict[str, Any]:
    (site,) = [site for site in report_of(directory)["sites"] if site["name"] == name]
    return dict(site)


@pytest.fixture(scope="module")
def killed(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was killed when half of its sites were there. Not to be changed."""
    inside = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECKART_CACHE", str(inside / "cache"))
        assert stopped(arguments(inside / "out"), inside, 40, signal.SIGKILL) == -signal.SIGKILL
    assert list((inside / "out.partial" / "finished").iterdir())
    return inside


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> Path:
    """The `out` of a run that was killed when half of its sites were there."""
    shutil.copytree(killed / "out.partial", tmp_path / "run" / "out.partial")
    return tmp_path / "run" / "out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "0.7"], "was for keep=0.8, not keep=0.7"),
        (["--method", "svd"], "was for method='auto', not method='svd'"),
        (["--of", "macs"], "was for of='bytes', not of='macs'"),
        (["--seed", "1"], "was for seed=0, not seed=1"),
        (["--exclude", "q_proj"], "was for exclude=[], not exclude=['q_proj']"),
        (["--sequential"], "was for sequential=False, not sequential=True"),
        (["--heal", "5"], "was for heal=0, not heal=5"),
        (["--eval", "none"], "not evaluation=''"),
        (["--samples", "5"], "was for samples=4, not samples=5"),
        (["--max-loss", "0.1"], "was for max_loss=None, not max_loss=0.1"),
    ],
)
def test_other_options_are_refused(
    options: list[str], message: str, interrupted: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(interrupted.with_name("out.partial").rglob("*"))
    assert main([*arguments(interrupted), *options, "--resume"]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "repeat its options, or remove it to start again" in shown
    assert sorted(interrupted.with_name("out.partial").rglob("*")) == before


def test_what_does_not_change_the_result_may_change(interrupted: Path, arguments: Arguments) -> None:
    assert main([*arguments(interrupted), "--resume", "--no-speed"]) == 0
    report_of(interrupted)


def test_another_model_or_text_is_refused(tmp_path: Path, texts: tuple[str, str], capsys: Any) -> None:
    model, text = tmp_path / "model", tmp_path / "text.txt"
    save_tiny(model)
    shutil.copy(texts[0], text)
    inside = tmp_path / "run"
    command = ["compress", str(model), "--out", str(inside / "out"), "--calibration", str(text), "--eval", "none"]
    command += ["--no-speed", *SMALL]
    assert stopped(command, inside, 40, signal.SIGKILL) == -signal.SIGKILL
    partial = sorted((inside / "out.partial").rglob("*"))
    text.write_text(prose(7, 200))
    assert main([*command, "--resume"]) == 2
    assert "the calibration text changed" in capsys.readouterr().err
    shutil.copy(texts[0], text)
    other = tiny_llama()
    up = other.model.layers[0].mlp.up_proj.weight.data
    up[[0, 1]] = up[[1, 0]].clone()
    save_tiny(model, other)
    assert main([*command, "--resume"]) == 2
    assert "the weights changed" in capsys.readouterr().err
    assert sorted((inside / "out.partial").rglob("*")) == partial
    save_tiny(model)
    assert main([*command, "--resume"]) == 0
    report_of(inside / "out")


def test_a_damaged_state_is_named(interrupted: Path, arguments: Arguments, capsys: Any) -> None:
    (interrupted.with_name("out.partial") / "job.json").write_text("{")
    assert main([*arguments(interrupted), "--resume"]) == 2
    assert "job.json cannot be read as JSON" in capsys.readouterr().err


def test_resume_without_anything_to_resume(arguments: Arguments, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main([*arguments(out, "--eval", "none", "--method", "svd"), "--resume"]) == 0
    assert main([*arguments(out, "--eval", "none", "--method", "svd"), "--resume"]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_ctrl_c_in_a_process_of_its_own(arguments: Arguments, tmp_path: Path) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    source = str(Path(eckart.__file__).parents[1])
    command = arguments(out, "--method", "svd")
    command.remove("--no-speed")
    process = subprocess.Popen(
        [sys.executable, "-m", "eckart", *command],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a script inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (partial / "output" / "model.safetensors").exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "eckart: interrupted; run the same command with --resume to go on" in shown
    assert not out.exists()
    assert main([*arguments(out, "--method", "svd"), "--resume"]) == 0
    report_of(out)
