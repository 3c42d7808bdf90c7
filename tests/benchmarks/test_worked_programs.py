"""Programs of the worked pages, in small: files like those they read, in which what they should find was planted."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.common.rows import read
from benchmarks.estimators import fermentation, trials
from benchmarks.models import device
from eckart.cli.app import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of examples/, with its options."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [name, *options])
    module.main()


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


def test_ratings_are_told_from_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    taste = 3 + rng.standard_normal((50, 1)) @ rng.standard_normal((1, 30)) + rng.standard_normal(30)
    titles = [f"{n}\t{'twice' if n in (3, 4) else f'film {n}'}\t199{n % 10}\tdrama" for n in range(30)]
    (tmp_path / "ml-100k.item").write_text("\n".join(["item_id:token\tmovie_title\trelease_year\tclass", *titles, ""]))
    seen = [(u, f) for u in range(50) for f in range(30) if rng.random() < 0.6]
    lines = [f"{u}\t{f}\t{taste[u, f]:.2f}\t88" for u, f in seen]
    (tmp_path / "ml-100k.inter").write_text("\n".join(["user_id:token\titem_id:token\trating\ttime", *lines, ""]))
    run_example("ratings", [str(tmp_path / "ratings.tsv"), "--data", str(tmp_path)], monkeypatch)
    asked = f"fit {tmp_path}/ratings.tsv --entries user,film,rating --method completion-altmin --rank 1"
    assert main([*asked.split(), "--hold-out", "10%", "--out", str(tmp_path / "films")]) == 0
    report = json.loads((tmp_path / "films/fit.json").read_text())
    assert report["held_out"]["rmse"] < 0.5 * report["held_out"]["column_means"]
    with (tmp_path / "films/predictions.csv").open(newline="", encoding="utf-8") as file:
        best = list(csv.DictReader(file))
    assert {"twice (1993), 3", "twice (1994), 4"} <= {row["column"] for row in best}
    told = {(int(row["row"]), int(row["column"].rpartition(", ")[2])) for row in best}
    assert len(told) == len(best) <= 50 * 10
    assert len(told & set(seen)) < 0.15 * len(seen)  # those that were held back


def test_what_stands_still_is_told_from_what_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 200, (24, 32, 1)).repeat(3, axis=2)
    film = np.repeat(scene[None], 40, axis=0)
    for at, frame in enumerate(film):
        frame[6:12, at // 2 : at // 2 + 6] = 255
    reader = ModuleType("imageio.v3")
    reader.imiter = lambda _: iter(film)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imageio", SimpleNamespace(v3=reader))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "imageio.v3", reader)
    run_example("frames", ["film.avi", str(tmp_path / "frames.npy"), "--block", "2", "--every", "2"], monkeypatch)
    frames = np.load(tmp_path / "frames.npy")
    assert frames.shape == (20, 12 * 16)
    asked = f"fit {tmp_path}/frames.npy --method rsvddpd --picture 12x16 --out {tmp_path}/still"
    assert main(asked.split()) == 0
    with (tmp_path / "still/scores.csv").open(newline="") as file:
        scores = np.array([row[1:] for row in list(csv.reader(file))[1:]], float)
    with (tmp_path / "still/components.csv").open(newline="") as file:
        parts = np.array([row[1:] for row in list(csv.reader(file))[1:]], float)
    truth = scene[..., 0].reshape(12, 2, 16, 2).mean(axis=(1, 3)).ravel()
    assert np.abs(scores @ parts - truth).max() < 6
    assert len(json.loads((tmp_path / "still/fit.json").read_text())["pictures"]) == 6
