"""`eckart fit`: what is written, and what is refused before anything is."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from scipy import io, sparse

from eckart.cli.app import main
from eckart.errors import Refused
from eckart.estimators import ESTIMATORS, load
from eckart.jobs.factor import directory
from eckart.jobs.factor.directory import ESTIMATOR, OTHERWISE, REPORT, Wish, factor_directory
from eckart.kernels.contract import KERNELS
from eckart.report.fitting import fitting_schema
from support.browser import asked, in_browser


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 24))
    x += np.where(rng.random(x.shape) < 0.03, 9.0, 0.0)
    file = tmp_path_factory.mktemp("tables") / "table.npy"
    np.save(file, x)
    return str(file)


@pytest.fixture(scope="module")
def fitted(table: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "out"
    factor_directory(table, out, Wish(method="rpca-ialm", picture="4x6"))
    return out


def test_the_report_keeps_its_schema_and_the_estimator_comes_back(fitted: Path, table: str) -> None:
    report = json.loads((fitted / REPORT).read_text("utf-8"))
    Draft202012Validator(fitting_schema()).validate(report)
    assert {file.name for file in fitted.iterdir()} == {REPORT, "report.html", *report["files"]}
    estimator = load(fitted / ESTIMATOR)
    scores = np.loadtxt(fitted / "scores.csv", delimiter=",", skiprows=1)[:, 1:]
    np.testing.assert_allclose(estimator.transform(np.load(table)), scores)
    low, rest = np.load(fitted / "low_rank.npy"), np.load(fitted / "sparse.npy")
    np.testing.assert_allclose(low + rest, np.load(table), atol=1e-5)
    assert report["course"]["converged"]
    assert len(report["singular_values"]) == 2


def test_a_picture_has_the_row_its_part_of_low_rank_and_its_part_of_few_entries(fitted: Path, table: str) -> None:
    x, low, few = np.load(table), np.load(fitted / "low_rank.npy"), np.load(fitted / "sparse.npy")
    first = json.loads((fitted / REPORT).read_text("utf-8"))["pictures"][0]
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(first["data"].partition(",")[2]))), float)
    span, row = np.ptp(x), int(first["row"])
    wanted = [(x[row] - x.min()) / span, (low[row] - x.min()) / span, 0.5 + few[row] / span]
    np.testing.assert_allclose(shown / 255, np.hstack([np.clip(w, 0, 1).reshape(4, 6) for w in wanted]), atol=0.002)


@pytest.mark.parametrize("method", [name for name, card in KERNELS.items() if card.kind == "transformer"])
def test_what_kernels_make_of_a_table(method: str, table: str, tmp_path: Path) -> None:
    factor_directory(table, tmp_path / "out", Wish(method=method, rank=4))
    scores = np.loadtxt(tmp_path / "out/scores.csv", delimiter=",", skiprows=1)[:, 1:]
    np.testing.assert_allclose(load(tmp_path / "out" / ESTIMATOR).transform(np.load(table)), scores, atol=1e-12)


@in_browser
def test_its_page_is_drawn_whole(fitted: Path, tmp_path: Path) -> None:
    script = """
        const all = (selector) => document.querySelectorAll(selector).length;
        document.documentElement.dataset.drawn = [all("#samples img"), all(".plot svg"), all("#cards li")];"""
    root = asked((fitted / "report.html").read_text("utf-8"), script, tmp_path)
    assert "data-error" not in root
    assert root["data-drawn"] == "6,2,5"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"method": "rpca"}, "unknown estimator 'rpca'"),
        ({"method": "rpca-ialm:penaltee=1"}, "did you mean 'penalty'"),
        ({"method": "rpca-ialm", "rank": 3}, "finds its rank by itself"),
        ({"method": "rpca-ialm", "hold_out": 0.1}, "predicts no entries"),
        ({"method": "rpca-ialm", "hold_out": 1.5}, "hold_out=1.5"),
        ({"method": "rpca-ialm", "picture": "5x5"}, "picture='5x5'"),
        ({"method": "rpca-ialm:tol=nan"}, "rpca-ialm: tol=nan is no number"),
    ],
)
def test_what_cannot_be_asked_for(table: str, tmp_path: Path, wish: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        factor_directory(table, tmp_path / "out", Wish(**wish))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unit", [0.0, 1e-300, 1e300])
def test_tables_of_any_size_have_the_error_of_their_shape(unit: float, table: str, tmp_path: Path) -> None:
    np.save(tmp_path / "scaled.npy", np.load(table) * unit)
    report = factor_directory(str(tmp_path / "scaled.npy"), tmp_path / "out", Wish(method="rpca-ialm"))
    if unit:
        np.save(tmp_path / "one.npy", np.load(table))
        one = factor_directory(str(tmp_path / "one.npy"), tmp_path / "other", Wish(method="rpca-ialm"))
        assert report["error"] == pytest.approx(one["error"], rel=1e-6)
    load(tmp_path / "out" / ESTIMATOR)


def test_what_does_not_fit_is_refused_and_what_breaks_off_is_not_in_the_way(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.load(table)
    x[0, 0] = np.inf
    np.save(tmp_path / "inf.npy", x)
    with pytest.raises(Refused, match="cannot be fitted to this table"):
        factor_directory(str(tmp_path / "inf.npy"), tmp_path / "out", Wish(method="rpca-ialm"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(directory, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            factor_directory(table, tmp_path / "out", Wish(method="rpca-ialm"))
    factor_directory(table, tmp_path / "out", Wish(method="rpca-ialm"))


def test_on_the_command_line(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", table, "--method", "rpca-ialm", "--out", str(tmp_path / "out"), "-q"]) == 0
    assert "left over of the norm" in capsys.readouterr().out
    assert main(["fit", "nothing.csv", "--method", "rpca-ialm", "--out", str(tmp_path / "other")]) == 2
    assert "nothing.csv" in capsys.readouterr().err


def test_a_sparse_table_goes_where_sparse_tables_do(tmp_path: Path) -> None:
    file = tmp_path / "table.mtx"
    io.mmwrite(file, sparse.random_array((20, 8), density=0.4, rng=np.random.default_rng(0)))
    with pytest.raises(Refused, match="rpca-ialm reads no sparse tables: write this one as"):
        factor_directory(str(file), tmp_path / "out", Wish("rpca-ialm"))
    assert factor_directory(str(file), tmp_path / "out", Wish("soft-impute", rank=2))["table"]["rows"] == 20


def test_a_method_of_another_kind_is_refused_for_its_own_reason() -> None:
    with pytest.raises(Refused, match="gives clusters"):
        Wish("kernel-k-means")
    kinds = {card.kind for register in (KERNELS, ESTIMATORS) for card in register.values()}
    assert kinds - {"transformer"} <= set(OTHERWISE)
