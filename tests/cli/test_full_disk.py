"""`eckart compress` where files cannot be written whole."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from support.commands import in_child, report_of


@pytest.mark.parametrize("limit", [100, 3000, 30_000, 60_000])
def test_files_that_cannot_be_written_whole(
    limit: int, run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The limit on the size of a file stands in for a full disk: job.json, the statistics, the weights and the report
    # hit it in turn.
    out = tmp_path / "out"

    def limited() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return run(out)

    assert in_child(limited) == 2
    shown = capfd.readouterr().err
    assert "eckart: error:" in shown
    assert "File too large" in shown
    assert "Traceback" not in shown
    assert not out.exists()
    leftovers = [p.name for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    assert not leftovers
    assert run(out, "--resume") == 0
    report_of(out)
    expected = tmp_path / "expected"
    assert run(expected) == 0
    assert (expected / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "where", ["eckart.jobs.compress.directory.write_report", "transformers.PreTrainedModel.save_pretrained"]
)
def test_a_full_disk_is_reported_with_advice(
    where: str, run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"

    def full(*_: Any) -> None:
        if where.startswith("transformers"):  # which writes by safetensors
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(28, "No space left on device", str(out))

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        assert run(out) == 2
    shown = capsys.readouterr().err
    assert "the disk is full" in shown
    assert "free some space, then go on with --resume" in shown
    assert not out.exists()
    assert run(out) == 2
    assert "holds an interrupted run: go on with --resume, or remove it" in capsys.readouterr().err.replace("\n", "")
    assert run(out, "--resume") == 0
    report_of(out)
