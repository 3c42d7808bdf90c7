"""Paired embeddings: the command on files, what it refuses, and its numbers against kernel matrices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import eckart
from eckart.cli.app import main
from eckart.diagnostics.schur_entropy import cosine_features
from eckart.jobs.diagnose.embeddings import median_distance
from support import hard
from support.embeddings import sets


def from_kernels(images: np.ndarray, texts: np.ndarray) -> dict[str, float]:
    """The same from kernel matrices (n, n): with P onto the range of K_T, (1 - P) K_I (1 - P) / n and P K_I P / n."""
    n = len(images)
    values, vectors = np.linalg.eigh(texts)
    q = vectors[:, values > values[-1] * n * 1e-13]
    p = q @ q.T
    parts = {
        "first": images,
        "explained": p @ images @ p,
        "unexplained": (np.eye(n) - p) @ images @ (np.eye(n) - p),
    }
    numbers: dict[str, float] = {"rank": q.shape[1]}
    for name, part in parts.items():
        scale = np.linalg.eigvalsh(part / n)
        scale = scale[scale > 1e-15]
        numbers[name] = float(-(scale * np.log(scale / scale.sum())).sum())
    numbers["share"] = np.trace(parts["unexplained"]) / np.trace(images)
    return numbers


def cosine_kernel(x: Tensor) -> np.ndarray:
    a = x.numpy()
    return (a @ a.T) / np.sqrt(np.outer((a * a).sum(1), (a * a).sum(1)))


def distinct(texts: Tensor) -> Tensor:
    """Seven texts, each for several images."""
    return texts[torch.arange(len(texts)) % 7]


CASES = {
    "general": sets(),
    "more dimensions than pairs": sets(20, 40, 7),
    "few texts": (sets(50, 9, 12)[0], distinct(sets(50, 9, 12)[1])),
    "texts of rank 2": (sets()[0], sets()[1][:, :2] @ hard.normal(2, 6)),
    "more text than pairs": sets(12, 6, 30),
}


@pytest.mark.parametrize("case", CASES)
def test_against_kernel_matrices(case: str) -> None:
    x, y = CASES[case]
    expected, found = from_kernels(cosine_kernel(x), cosine_kernel(y)), eckart.embeddings(x, y)
    numbers = found.to_dict()
    assert numbers["second_rank"] == expected["rank"]
    assert numbers["share_unexplained"] == pytest.approx(expected["share"], abs=1e-12)
    for name, value in numbers["entropy"].items():
        assert value == pytest.approx(expected[name], abs=1e-9), name
    crowded = expected["rank"] > len(x) / 2
    assert [w for w in found.warnings if f"rank {expected['rank']} on {len(x)} pairs" in w] or not crowded
    assert crowded or not found.warnings


def test_gaussian_against_kernel_matrices() -> None:
    x, y = sets(42, 3, 4)
    y = distinct(y)
    found = eckart.embeddings(x, y, kernel="gaussian", frequencies=400)
    kernels = [
        np.exp(-torch.cdist(s, s).square().numpy() / (2 * b * b))
        for s, b in zip((x, y), found.bandwidths or (), strict=True)
    ]
    expected = from_kernels(*kernels)
    assert found.split.text_rank == expected["rank"] == 7
    assert found.split.share == pytest.approx(expected["share"], abs=0.03)
    assert found.split.entropy == pytest.approx(expected["unexplained"], rel=0.05)
    assert found.split.entropy_whole == pytest.approx(expected["first"], rel=0.05)
    given = eckart.embeddings(x, y, kernel="gaussian", bandwidth=1.5, frequencies=8)
    assert given.bandwidths == (1.5, 1.5)


def test_scale_does_not_matter() -> None:
    x, y = sets()
    scales = torch.logspace(-300, 300, len(x), dtype=torch.float64)[:, None]
    torch.testing.assert_close(cosine_features(x * scales), cosine_features(x))
    assert eckart.embeddings(x * scales, y).split.share == pytest.approx(eckart.embeddings(x, y).split.share)
    assert median_distance(3 * x) == pytest.approx(3 * median_distance(x))
    exact = torch.pdist(x).median()
    assert median_distance(x) == pytest.approx(float(exact), rel=0.05)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8, torch.int64], ids=lambda d: str(d)[6:]
)
def test_dtypes(dtype: torch.dtype) -> None:
    x, y = ((10 * s).to(dtype) for s in sets())
    found = eckart.embeddings(x, y)
    assert found.split.share == eckart.embeddings(x.double(), y.double()).split.share
    assert found.nullified(x, y[0]).dtype == torch.float32
    assert found.nullified(x.double(), y[0]).dtype == torch.float64


# --- the command ------------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = sets(200, 8, 6)
    x = x.T.contiguous().T
    images, texts = tmp_path / "images.npy", tmp_path / "texts.safetensors"
    np.save(images, x.numpy().astype(">f8"))
    save_file({"captions": y.contiguous(), "other": torch.ones(3)}, texts)
    np.save(tmp_path / "prompt.npy", y[3].numpy())
    out, numbers = tmp_path / "left.npy", tmp_path / "numbers.json"
    arguments = [str(images), f"{texts}:captions", "--json", str(numbers), "--out", str(out)]
    assert main(["embeddings", *arguments, "--nullify", str(tmp_path / "prompt.npy")]) == 0
    shown = capsys.readouterr().out
    expected = eckart.embeddings(x, y)
    written = json.loads(numbers.read_text())
    assert {key: written[key] for key in expected.to_dict()} == expected.to_dict()
    assert (written["first"], written["second"]) == (str(images), f"{texts}:captions")
    for row in (
        "pairs 200",
        "dimensions 8 and 6",
        f"entropy of the first set {expected.split.entropy_whole:.3f} nats",
        f"... explained {expected.split.entropy_explained:.3f} nats",
        f"... unexplained {expected.split.entropy:.3f} nats",
        f"share of the trace unexplained {expected.split.share:.3f}",
        f"... if the second set were shuffled {expected.split.shuffled:.3f}",
        "rank of the second covariance 6",
    ):
        assert row in re.sub(r"[\s│]+", " ", shown)
    assert "warning" not in shown
    left = torch.from_numpy(np.load(out, allow_pickle=False))
    direction = expected.split.map @ cosine_features(y[3:4])[0]
    assert (left @ direction).abs().max() < 1e-12 < (x @ direction).abs().max()
    # Nothing but that direction is gone.
    assert torch.linalg.matrix_rank(x - left, rtol=1e-10) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["images.npy", "texts.safetensors", "prompt.npy", "left.npy", "numbers.json"]
    )


def test_command_with_the_gaussian_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = sets()
    save_file({"x": x.bfloat16()}, tmp_path / "x.safetensors")
    np.save(tmp_path / "y.npy", y.half().numpy())
    arguments = [
        str(tmp_path / "x.safetensors"),
        str(tmp_path / "y.npy"),
        "--kernel",
        "gaussian",
        "--frequencies",
        "50",
    ]
    results = []
    for i, options in enumerate(([], [], ["--seed", "1"], ["--bandwidth", "2"])):
        assert main(["embeddings", *arguments, *options, "--json", str(tmp_path / f"{i}.json")]) == 0
        results.append(json.loads((tmp_path / f"{i}.json").read_text()))
    assert results[0] == results[1]
    assert results[0]["bandwidths"] == [median_distance(x.bfloat16()), median_distance(y.half())]
    assert results[0]["bandwidths"] != results[2]["bandwidths"]
    assert results[3]["bandwidths"] == [2, 2]
    shown = capsys.readouterr().out
    assert shown.count("bandwidths, the median distances") == 3
    assert re.search(r"warning: the second set's covariance has rank \d+ on 60 pairs", shown)


def test_nullified_embeddings_as_safetensors(tmp_path: Path) -> None:
    x, y = sets()
    np.save(tmp_path / "x.npy", x.float().numpy())
    np.save(tmp_path / "y.npy", y.float().numpy())
    np.save(tmp_path / "prompt.npy", y[:1].float().numpy())
    given = [str(tmp_path / name) for name in ("x.npy", "y.npy")]
    out = str(tmp_path / "out.safetensors")
    assert main(["embeddings", *given, "--nullify", str(tmp_path / "prompt.npy"), "--out", out]) == 0
    (left,) = load_file(out).values()
    torch.testing.assert_close(left, eckart.embeddings(x, y).nullified(x, y[0]).float())
    assert main(["embeddings", out, given[1]]) == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command on files that are written from what is given, and returns what it says as it refuses."""

    def path(name: str, content: Any) -> str:
        if isinstance(content, str):
            return content
        if isinstance(content, dict):
            save_file(content, tmp_path / f"{name}.safetensors")
            return str(tmp_path / f"{name}.safetensors")
        target = tmp_path / f"{name}.npy"
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            np.save(target, content, allow_pickle=True)
        return str(target)

    def call(first: Any, second: Any, *options: Any) -> str:
        given = [path("first", first), path("second", second)]
        rest = [o if isinstance(o, str) else path("prompt", o) for o in options]
        before = set(tmp_path.iterdir())
        assert main(["embeddings", *given, *rest]) == 2
        assert set(tmp_path.iterdir()) == before
        said = capsys.readouterr().err
        assert "eckart: error:" in said
        assert "Traceback" not in said
        return " ".join(said.split())

    return call


X, Y = (s.float().numpy() for s in sets())


def changed(array: np.ndarray, row: int, value: float) -> np.ndarray:
    array = array.copy()
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("missing.npy", Y, "missing.npy cannot be read as .npy: "),
        (X, "missing.safetensors", "missing.safetensors cannot be read as .safetensors: "),
        ("images.csv", Y, "images.csv is neither .npy nor .safetensors"),
        (b"", Y, "first.npy cannot be read as .npy: "),
        (b"\x80\x04K\x01.", Y, "first.npy cannot be read as .npy: "),
        (b"\x93NUMPY\x01\x00" + bytes(40), Y, "first.npy cannot be read as .npy: "),
        (np.array([{}, 1]), Y, "such an array is never loaded"),
        (np.array(["a", "b"]), Y, "first.npy holds <U1, not real numbers"),
        (X > 0, Y, "first.npy holds bool, not real numbers"),
        (X * 1j, Y, "first.npy holds complex64, not real numbers"),
        ({"a": torch.ones(2, 2) > 0}, Y[:2], "the first set holds torch.bool, not real numbers"),
        ({"a": torch.ones(2, 2), "b": torch.ones(2)}, Y, "first.safetensors holds 2 tensors (a, b); name one, as in"),
        (X[:, 0], Y, "the first set has shape (60,); embeddings are (rows, dimensions)"),
        (X[None], Y, "the first set has shape (1, 60, 9)"),
        (np.float32(1), Y, "the first set has shape ()"),
        (X[:0], Y[:0], "the first set has shape (0, 9)"),
        (X, Y[:59], "60 rows of the first set do not pair with 59 of the second"),
        (changed(X, 7, np.nan), Y, "row 7 of the first set holds nan"),
        (X, changed(Y, 59, -np.inf), "row 59 of the second set holds -inf"),
        (X, changed(Y, 3, 0), "row 3 of the second set is zero and has no direction, which kernel cosine needs"),
    ],
)
def test_bad_input(refused: Callable[..., str], first: Any, second: Any, says: str) -> None:
    assert says in refused(first, second)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bandwidth", "2"], "bandwidth=2.0 is of kernel gaussian"),
        (["--kernel", "gaussian", "--bandwidth", "0"], "bandwidth=0.0 and frequencies=512 must be positive"),
        (["--kernel", "gaussian", "--bandwidth", "nan"], "bandwidth=nan"),
        (["--kernel", "gaussian", "--frequencies", "0"], "frequencies=0 must be positive"),
        (["--nullify", Y[0]], "--nullify FILE and --out FILE go together"),
        (["--out", "left.npy"], "--nullify FILE and --out FILE go together"),
        (["--nullify", Y[0], "--out", "left.txt"], "left.txt must end in .npy or .safetensors"),
        (["--nullify", Y[0], "--out", "/nowhere/left.npy"], "/nowhere/left.npy cannot be written"),
        (["--json", __file__], f"{Path(__file__).name} exists; name another file"),
        (
            ["--nullify", Y[0], "--out", "left.npy", "--kernel", "gaussian"],
            "with kernel cosine only: with gaussian its",
        ),
        (["--nullify", Y[:2], "--out", "left.npy"], "a prompt (2, 5) do not fit sets of 9 and 5 dimensions"),
        (["--nullify", X[0], "--out", "left.npy"], "a prompt (9,) do not fit"),
        (["--nullify", 0 * Y[0], "--out", "left.npy"], "row 0 of the prompt is zero"),
        (["--nullify", np.nan * Y[0], "--out", "left.npy"], "row 0 of the prompt holds nan"),
    ],
)
def test_bad_options(
    refused: Callable[..., str], options: list[Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(X, Y, *options)


def test_more_refusals(refused: Callable[..., str], tmp_path: Path) -> None:
    out = str(tmp_path / "left.npy")
    flat = np.concatenate([Y, np.zeros_like(Y)], 1)
    outside = np.eye(10)[9]
    assert "outside of what the texts span" in refused(X, flat, "--nullify", outside, "--out", out)
    assert "the median distance of the second set is 0.0" in refused(X, 0 * Y + 1, "--kernel", "gaussian")
    assert "the median distance of the first set is 0.0" in refused(X[:1], Y[:1], "--kernel", "gaussian")
    stored = {"captions": torch.from_numpy(Y).contiguous()}
    path = refused(X[:1], stored).split()  # counts differ; the file is there now
    assert "pair" in path
    named = f"{tmp_path / 'second.safetensors'}:titles"
    assert "has no tensor 'titles'; it holds captions" in refused(X, named)
