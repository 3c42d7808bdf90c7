"""A dry run: that it writes nothing, and that what it says comes true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eckart.cli.app import main
from eckart.errors import Refused
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.dry_run import dry_run
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.texts import Texts


@pytest.fixture
def short(texts: tuple[str, str]) -> Texts:
    return Texts(*texts, eval_samples=3, eval_length=32)


@pytest.mark.parametrize("recipe", [{"method": "svd"}, {"method": "svd", "head": True, "of": "bytes"}, {"keep": 0.6}])
def test_a_uniform_budget_comes_true(
    recipe: dict[str, Any], llama_directory: Path, short: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Recipe(**recipe, allocation="uniform", samples=4, length=32)
    found = dry_run(str(llama_directory), asked, short)
    assert not list(tmp_path.iterdir())
    report = compress_directory(str(llama_directory), tmp_path / "out", asked, short, measure_speed=False)
    size = found["budget"]["size"]
    assert size["parameters"] == report["size"]["parameters"]
    # The file has a header beside its tensors.
    assert 0 <= report["size"]["bytes"]["after"] - size["bytes"]["after"] < 20_000
    assert found["budget"]["least"] < asked.keep
    taken = {row["name"] for row in found["coverage"]["matrices"] if row["taken"]}
    assert taken == {row["name"] for row in found["budget"]["matrices"]}
    assert sum(row["count"] for row in found["budget"]["matrices"]) == len(report["sites"])
    # In the budget's own currency no kind keeps more than all of it, and together they keep what was asked for.
    kept = [row["keep"] for row in found["budget"]["matrices"]]
    assert all(0 < keep <= 1 for keep in kept)
    assert min(kept) < asked.keep
    for numbers in ("seconds", "memory"):
        parts = {name: value for name, value in found[numbers].items() if name != "total"}
        assert all(value >= 0 for value in parts.values())
        assert found[numbers]["total"] == pytest.approx(sum(parts.values()))
    assert found["memory"]["statistics"] > 0 or asked.method == "svd"


@pytest.mark.parametrize("method", ["auto", "gptq", "basis-sharing", "modegpt", "rtn"])
def test_other_methods(method: str, llama_directory: Path, short: Texts) -> None:
    asked = Recipe(method=method, of="bytes", samples=4, length=32)
    found = dry_run(str(llama_directory), asked, short)
    size = found["budget"]["size"]["bytes"]
    assert size["after"] <= 0.8 * size["before"]
    assert any("the trials of auto are not counted" in note for note in found["notes"]) == (method == "auto")


def test_a_loss_has_no_budget(llama_directory: Path, short: Texts) -> None:
    found = dry_run(str(llama_directory), Recipe(method="svd", samples=4, length=32, heal=2), short, max_loss=0.1)
    assert found["budget"] is None
    assert found["requested"] == {"max_loss": 0.1}
    assert "the time of --heal is not counted" in found["notes"]


def test_what_cannot_be_met_is_refused(llama_directory: Path, short: Texts) -> None:
    with pytest.raises(Refused, match=r"keep=0.01 of linear-parameters cannot be met with svd: the least is 0\."):
        dry_run(
            str(llama_directory), Recipe(method="svd", keep=0.01, of="linear-parameters"), Texts(short.calibration, "")
        )
    with pytest.raises(Refused, match="no text file 'nowhere'"):
        dry_run(str(llama_directory), Recipe(), Texts("nowhere", ""))


@pytest.mark.parametrize("width", ["60", "160"])
def test_on_the_command_line(
    width: str,
    llama_directory: Path,
    texts: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", width)
    line = ["compress", str(llama_directory), "--dry-run", "--calibration", texts[0], "--eval", texts[1]]
    assert main([*line, "--samples", "4", "--length", "32", "-q", "--exclude", "q_proj", "--no-embeddings"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    # Notes are lines for whatever reads them; what is drawn fits the terminal.
    drawn = [line for line in shown.out.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, drawn)) <= int(width)
    for part in ("--embeddings", "--exclude", "gptq 8", "statistics"):
        assert part in shown.out
    assert main([*line, "--samples", "4", "--length", "32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["requested"] == {"keep": 0.8, "of": "bytes"}
    assert not list(tmp_path.iterdir())
