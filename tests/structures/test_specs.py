"""Specs that ask for more than their tensors and their outer shape justify are refused before anything is allocated."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import LONGEST, Refused
from eckart.structures import from_spec

OUT, IN, HUGE = 64, 32, 2**31


def selection(out: int, columns: int) -> dict[str, Any]:
    size, adjoint = max(out, columns), out > columns
    return {
        "kind": "selection",
        "shape": [out, columns],
        "options": {"size": size, "adjoint": adjoint},
        "leaves": {"index": ["int32", min(out, columns)]},
    }


def square(kind: str, n: int) -> dict[str, Any]:
    return {"kind": kind, "shape": [n, n], "options": {"size": n}}


def dense(out: int, columns: int) -> dict[str, Any]:
    return {"kind": "dense", "shape": [out, columns], "leaves": {"weight": ["float32", out, columns]}}


def chain(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "chain", "shape": [parts[0]["shape"][0], parts[-1]["shape"][1]], "children": list(parts)}


def within(middle: dict[str, Any]) -> dict[str, Any]:
    """A matrix of an ordinary shape with something of another shape inside."""
    out, columns = middle["shape"]
    return chain(selection(OUT, out), middle, selection(columns, IN))


def of_copies(kind: str, copies: int) -> dict[str, Any]:
    inner = dense(2, 2)
    shape = [2 * copies, 2 * copies]
    return {"kind": kind, "shape": shape, "options": {"copies": copies}, "children": [inner]}


BOMBS: dict[str, dict[str, Any]] = {
    "selections": chain(selection(OUT, HUGE), selection(HUGE, IN)),
    "beyond 64 bits": chain(selection(OUT, 10**30), selection(10**30, IN)),
    **{kind: within(square(kind, 2**28)) for kind in ("identity", "cosine", "hadamard")},
    **{kind: within(of_copies(kind, 2**27)) for kind in ("repeated", "interleaved")},
    "sparse": within(
        {
            "kind": "sparse",
            "shape": [8, HUGE],
            "options": {"size": HUGE},
            "leaves": {"values": ["float32", 3], "columns": ["int64", 3], "offsets": ["int16", 9]},
        }
    ),
    "column-sparse": within(
        {
            "kind": "column-sparse",
            "shape": [HUGE, 8],
            "options": {"size": HUGE},
            "leaves": {"values": ["float32", 1, 8], "places": ["int64", 1, 8]},
        }
    ),
    "scattered": within(
        {
            "kind": "scattered",
            "shape": [2**20, 2**20],
            "options": {"out": 2**20, "columns": 2**20},
            "leaves": {"values": ["float32", 3], "places": ["int32", 2, 3]},
        }
    ),
    "kronecker": within(
        {
            "kind": "kronecker",
            "shape": [2**32, 1],
            "leaves": {"left": ["float32", 2**16, 1], "right": ["float32", 2**16, 1]},
        }
    ),
    "kernelized": within(
        {
            "kind": "kernelized",
            "shape": [2**17, 2**17],
            "options": {"scale": 1.0},
            "leaves": {"left": ["float32", 2, 2**17, 1], "right": ["float32", 2, 2**17, 1], "kept": ["int64", 1]},
        }
    ),
    "many": {"kind": "sum", "shape": [OUT, OUT], "children": [square("identity", OUT)] * 5000},
    "many with tensors": {"kind": "sum", "shape": [OUT, IN], "children": [dense(OUT, IN)] * 50_000},
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs(kind: str) -> None:
    started = time.perf_counter()
    with pytest.raises(Refused, match=r"no version writes|malformed"):
        from_spec(BOMBS[kind], "a.matrix")
    assert time.perf_counter() - started < 5


def test_sizes_that_somebody_writes() -> None:
    from_spec(within(square("hadamard", 128)))
    from_spec(chain(dense(OUT, 500), dense(500, IN)))
    from_spec(within(of_copies("repeated", 32)))
    from_spec({"kind": "sum", "shape": [OUT, OUT], "children": [square("identity", OUT), square("cosine", OUT)]})


@pytest.mark.parametrize(
    "leaf", [["float32", 3.0, 4], ["float32", True, 4], ["float32", "3", 4], "float32", [], {}, ["float32", -3, 4], 7]
)
def test_leaves_that_are_none(leaf: Any) -> None:
    with pytest.raises(Refused, match="malformed 'dense' spec"):
        from_spec({"kind": "dense", "shape": [3, 4], "leaves": {"weight": leaf}})


def test_a_dtype_that_is_not_the_one_of_the_leaf() -> None:
    spec = {"kind": "permutation", "shape": [4, 4], "leaves": {"index": ["int64", 4]}}
    with pytest.raises(Refused, match=r"states 'index' as torch\.int64, which is torch\.int32"):
        from_spec(spec)


@pytest.mark.parametrize("length", [10**5, 10**6])
def test_what_is_quoted_is_short(length: int) -> None:
    for spec in (
        {"kind": "x" * length},
        {"kind": "dense", "shape": [1] * length, "leaves": {"weight": ["float32", 2, 2]}},
        {"kind": "dense", "shape": [2, 2], "leaves": {"weight": ["y" * length, 2, 2]}},
        {"kind": "dense", "shape": [2, 2], "leaves": {"z" * length: ["float32", 2, 2]}},
        {"kind": "sum", "shape": [2, 2], "children": "w" * length},
        ["v" * length],
    ):
        with pytest.raises(Refused) as caught:
            from_spec(spec, "a.matrix")  # type: ignore[arg-type]
        assert len(str(caught.value)) <= 1000


def test_a_refusal_is_readable() -> None:
    text = str(Refused("a\x1b[2Jb\x07\u202ec\nd" + "e" * 10**6))
    assert text.startswith("a\\x1b[2Jb\\x07\\u202ec\nd")
    assert len(text) <= LONGEST + 10


@pytest.mark.parametrize("method", ["cp", "tucker-2", "spatial-svd"])
@pytest.mark.parametrize("shape", [(64, 64, 3), (32, 16, 3), (16, 32, 5), (8, 64, 3)])
def test_whatever_a_method_makes_of_a_convolution_loads(method: str, shape: tuple[int, int, int]) -> None:
    out, channels, size = shape
    model = nn.Sequential(nn.Conv2d(channels, out, size)).eval()
    data = [torch.ones(1, channels, size, size)]
    for keep in (0.9, 0.5):
        again = copy.deepcopy(model)
        eckart.compress(again, method, keep=keep, of="parameters", calibration=data)
        if isinstance(again[0], nn.Conv2d):
            continue  # nothing that pays
        spec = again[0].structure.spec()
        assert from_spec(spec).spec() == spec


@pytest.mark.parametrize("terms", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(64, 64), (32, 16), (128, 64)])
def test_whatever_a_parametrization_makes_of_a_convolution_loads(shape: tuple[int, int], terms: int) -> None:
    model = nn.Sequential(nn.Conv2d(shape[1], shape[0], 3))
    try:
        eckart.reparametrize(model, "apriori-conv", terms=terms)
    except Refused as told:
        assert "terms" in str(told)  # noqa: PT017
        return
    spec = model[0].structure.spec()
    assert from_spec(spec).spec() == spec
