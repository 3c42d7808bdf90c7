"""The command line's entry: what is loaded, what is said of wrong ones, and exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from eckart import __version__
from eckart.cli.app import main, run
from eckart.cli.command_line import COMMANDS
from eckart.errors import Refused
from eckart.jobs.exports.contract import formats


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("compres", "unknown command 'compres'; did you mean 'compress'? there are compress, compensate, adapt"),
        ("compress", "eckart compress needs MODEL; see eckart compress --help"),
        ("compress x", "eckart compress needs --out DIR"),
        ("compress x --out", "--out needs a value; see eckart compress --help"),
        ("compress x y --out z", "y is too much for eckart compress"),
        ("compress x --out y --samples many", "--samples 'many' is no int; see eckart compress --help"),
        ("compress x --out y --headd", "unknown option --headd; did you mean '--head'? see eckart compress --help"),
        ("export x --out y", "eckart export needs --to; see eckart export --help"),
        (
            "export x --out y --to denze",
            f"--to 'denze' is none of {', '.join(formats())}; did you mean 'dense'?",
        ),
        ("adapt x --out y", "eckart adapt needs --data"),
        ("embeddings x y --kernel sine", "--kernel 'sine' is none of cosine, gaussian; did you mean 'cosine'?"),
        ("diagnose x --measure 0.9,half", "--measure half: a share is needed, as in 0.8 or 80%"),
    ],
)
def test_wrong_command_lines_are_said_in_one_line(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"eckart: error: {says}")
    assert shown.err.count("\n") == 1


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"eckart {__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert name in shown
    assert main([]) == 2
    assert capsys.readouterr().out == shown


ASKED = ("'--version'", "'--help'", "'export', '--help'", "'verify', '--help'")


@pytest.mark.parametrize("line", ["import eckart", *(f"main([{words}])" for words in ASKED)])
def test_neither_torch_nor_scipy_is_loaded(line: str) -> None:
    program = (
        f"import sys\nfrom eckart.cli.app import main\n{line}\nprint(sorted({{'torch', 'scipy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compress", "", "--out", "out"], "the model has no name"),
        (["compress", "  ", "--out", "out"], "the model has no name"),
        (["evaluate", ""], "the model has no name"),
        (["diagnose", "", "--out", "out"], "the model has no name"),
        (["export", "", "--to", "dense", "--out", "out"], "the model has no name"),
        (["export", "", "--to", "peft", "--out", "out"], "the model has no name"),
        (["verify", ""], "there is no directory ''"),
    ],
)
def test_names_that_are_empty(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


LESS = "free some, or ask for less at a time (fewer or shorter samples)\n"


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (Refused("too [bold]small[/]"), 2, "eckart: error: too [bold]small[/]\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "eckart: error: [Errno 2] No such file: 'x'\n"),
        (
            OSError(28, "Full", "x"),
            2,
            "eckart: error: the disk is full (x): free some space, then try again\n",
        ),
        (MemoryError(), 2, f"eckart: error: the memory does not suffice (nothing is left): {LESS}"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes\nframe #0"),
            2,
            f"eckart: error: the memory does not suffice (DefaultCPUAllocator: can't allocate memory: 8 bytes): {LESS}",
        ),
        (KeyboardInterrupt(), 130, "eckart: interrupted\n"),
    ],
)
def test_exit_statuses(error: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise error

    assert run(command, signature(command).bind()) == status
    assert capsys.readouterr().err == says


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("m", "'m' cannot be written: No such file"),
        ("m.lock.c054a894.tmp", "'m' cannot be written: No such file"),
        ("m.partial/report.json", "'m' cannot be written: No such file"),
        ("m/report.json", "'m' cannot be written: No such file"),
        ("m.safetensors", "[Errno 2] No such file: 'm.safetensors'"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(file: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command(out: str) -> int:
        raise FileNotFoundError(2, "No such file", file)

    assert run(command, signature(command).bind("m")) == 2
    assert capsys.readouterr().err == f"eckart: error: {says}\n"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_other_errors_are_faults_and_raised(kind: type[Exception]) -> None:
    def command() -> int:
        raise kind("a fault")

    with pytest.raises(kind, match="a fault"):
        run(command, signature(command).bind())


def test_interrupted_while_a_command_loads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cyclopts.App.parse_args", interrupted)
    assert main(["export"]) == 130
    assert capsys.readouterr().err == "eckart: interrupted\n"


def test_quiet_silences_libraries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")
    assert main(["evaluate", "/nowhere", "-q"]) == 2
    assert os.environ["TQDM_DISABLE"] == os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"


PROGRAM = [sys.executable, "-m", "eckart"]


@pytest.mark.parametrize("line", ["--version", "--help", "methods adapters"])
def test_a_reader_that_leaves_is_no_fault(line: str) -> None:
    """The output is closed before anything is written to it; `head` would do so a little later."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, *line.split()], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("line", ["--version", "--help"])
def test_a_full_output_is_said(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, *line.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "eckart: error: the output cannot be written: No space left on device\n"


def test_no_output_at_all() -> None:
    done = subprocess.run(["sh", "-c", f"{' '.join(PROGRAM)} --version >&-"], stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "compress LLAMA --out OUT --calibration nowhere.txt",
        "compress LLAMA --out OUT --eval nowhere.txt",
        "compress LLAMA --dry-run --eval nowhere.txt",
        "compress LLAMA --out FILE/sub",
        "adapt LLAMA --out OUT --data nowhere.txt",
        "adapt LLAMA --out OUT --data TEXT --validation nowhere.jsonl",
        "adapt LLAMA --out OUT --data TEXT --eval nowhere.txt",
        "adapt LLAMA --out FILE/sub --data TEXT",
        "diagnose LLAMA --text nowhere.txt",
        "diagnose LLAMA --against nowhere/at/all",
        "diagnose LLAMA --out FILE/sub",
        "evaluate LLAMA --text nowhere.txt",
        "evaluate LLAMA --text TEXT --against nowhere/at/all",
        "compensate LLAMA --against nowhere/at/all --out OUT --calibration TEXT --eval none",
        "compensate LLAMA --against LLAMA --out OUT --calibration nowhere.txt",
        "compensate LLAMA --against LLAMA --out FILE/sub",
        "export LLAMA --to dense --out FILE/sub",
    ],
)
def test_all_paths_are_looked_at_before_a_model_is_loaded(
    line: str,
    tmp_path: Path,
    llama_directory: Path,
    texts: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import_module("eckart.cli.evaluate")  # before there is another `load` that it could import

    def load(source: str, **_: object) -> None:
        raise AssertionError(f"{source} is loaded")

    (tmp_path / "file").write_text("")
    there = {"LLAMA": llama_directory, "TEXT": texts[0], "FILE": tmp_path / "file", "OUT": tmp_path / "out"}
    for name, path in there.items():
        line = line.replace(name, str(path))
    for module in ("eckart.models.transformers", "eckart.cli.evaluate"):
        monkeypatch.setattr(f"{module}.load", load)
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said or f"{tmp_path}/file is a file" in said
    assert not (tmp_path / "out").exists()


def test_what_fails_while_an_interruption_is_cleaned_up_after_is_the_interruption(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise BufferError("cannot close exported pointers exist")

    assert run(command, signature(command).bind()) == 130
    assert capsys.readouterr().err == "eckart: interrupted\n"
