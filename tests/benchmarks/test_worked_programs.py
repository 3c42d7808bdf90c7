"""Programs of the worked pages, in small: files like those they read, in which what they should find was planted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.common.rows import read
from benchmarks.estimators import fermentation, trials
from benchmarks.models import device


def found(program: object, options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The rows of a run, all fields of each."""
    file = folder / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", ["it", "--folder", str(folder), "--json", str(file), *options])
    program.main()  # type: ignore[attr-defined]
    return [row.fields for row in read(file)]


def test_a_share_follows_the_sugar_that_it_was_not_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    wave, hours = np.linspace(900, 1600, 60), np.arange(240) * fermentation.HOURS
    sugar = np.exp(-2 * (hours / hours[-1]) ** 2)
    pure = np.exp(-(((wave - np.array([[1100.0], [1350.0]])) / 60) ** 2)) + 0.1
    x = np.stack([sugar, 1 - sugar], axis=1) @ pure + 0.002 * rng.standard_normal((240, 60))
    pd.DataFrame(x, columns=wave.round(2).astype(str)).to_csv(tmp_path / "fermentation_spectra.csv", index=False)
    at = slice(0, 240, 24)
    laboratory = {"time": hours[at], "glucose": 30 * sugar[at], "ethanol": 15 * (1 - sugar[at])}
    pd.DataFrame(laboratory).to_csv(tmp_path / "fermentation_hplc.csv", index=False)
    rows = found(fermentation, [], tmp_path, monkeypatch)
    assert len(rows) == 6
    assert {row["spectra"] for row in rows} == {240 // fermentation.EVERY}
    for row in rows:
        if row["method"] == "unmixing-l21":
            assert row["glucose"] > 0.95
            assert row["ethanol"] < -0.95


def test_delays_are_chosen_where_classes_differ_in_their_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "FingerMovements").mkdir()
    for part in ("TRAIN", "TEST"):
        y = np.arange(60) % 2
        white = rng.standard_normal((60, 2, 81))
        x = white[..., 1:] + np.where(y == 1, 0.7, -0.7)[:, None, None] * white[..., :-1]
        lines = [
            ":".join([*(",".join(f"{v:.4f}" for v in one) for one in trial), f"c{k}"])
            for trial, k in zip(x, y, strict=True)
        ]
        text = "\n".join(["# made", "@problemName small", "@data", *lines, ""])
        (tmp_path / "FingerMovements" / f"FingerMovements_{part}.ts").write_text(text)
        again, labels = trials.trials("FingerMovements", part, tmp_path)
        np.testing.assert_allclose(again, x, atol=1e-4)
        assert labels.tolist() == [f"c{k}" for k in y]
    options = ["--only", "accuracy", "--task", "FingerMovements"]
    row = found(trials, options, tmp_path, monkeypatch)[0]
    assert row["order"] == 2
    assert row["chosen"] > 0.9 > 0.7 > row["plain"]
    assert row["chosen"] - row["plain"] == pytest.approx((row["only with delays"] - row["only without"]) / 60)
    assert row["mcnemar"] < 0.01


def test_a_device_does_the_whole_job_as_the_cpu_does(
    llama_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    asked = ["--device", "cpu", "--model", str(llama_directory), "--method", "svd", "--size", "64", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["device", *asked])
    device.main()
    job, *products = [row.found for row in read(file)]
    assert job["apart"] == job["device"]["read back"] == 0
    assert len(products) == len(device.KINDS)
    assert all(found[f"{tokens} tokens"] > 0 for found in products for tokens in device.TOKENS)
