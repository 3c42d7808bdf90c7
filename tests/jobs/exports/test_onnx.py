"""ONNX: what onnxruntime computes, which products stay products by codes, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.jobs.exports import onnx
from eckart.jobs.exports._divergence import divergence
from eckart.jobs.exports.contract import writer
from eckart.models.transformers import load
from eckart.structures import Dense, Quantized, StructuredMatrix
from jobs.exports.test_codes import saved
from jobs.exports.test_plain import factors
from support.commands import nothing_left
from support.tiny import VOCABULARY, tiny_llama


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(Refused, match=r"onnxruntime is missing: pip install 'eckart\[onnx\]'"):
        onnx.write("nowhere", tmp_path / "o")


def test_a_package_that_the_tracer_lacks_is_named_and_not_called_untraceable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*_: object, **__: object) -> None:
        try:
            raise ModuleNotFoundError("No module named 'google'", name="google")
        except ModuleNotFoundError as error:
            raise RuntimeError("the graph cannot be converted") from error

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(Refused, match=r"export --to onnx needs the module google, .*: pip install --upgrade protobuf"):
        writer("onnx")(saved(tmp_path / "m", of_all_kinds), tmp_path / "o")
    assert nothing_left(tmp_path / "o")


def of_all_kinds(w: Tensor, place: int) -> StructuredMatrix:
    kinds: list[StructuredMatrix] = [
        Quantized.quantize(w, 4, 32),
        Quantized.quantize(w, 3, 16, symmetric=True),
        Quantized.quantize(w, 8, 64),
        Quantized.quantize(w, 5, 16),
        factors(w),
        Quantized.quantize(w, 4, 12),
        Quantized.quantize(w, 4, 16, codebook=torch.linspace(-1, 1, 16)),
    ]
    return kinds[place % len(kinds)]


def test_onnxruntime_computes_what_eckart_does(tmp_path: Path) -> None:
    for package in onnx.NEEDED:
        pytest.importorskip(package)
    import onnxruntime
    from onnx import load as read

    source = saved(tmp_path / "m", of_all_kinds)
    said = onnx.write(source, tmp_path / "o")
    assert said.startswith("14 matrices as factors and codes, 8 products by codes as they are; run by onnxruntime")
    session = onnxruntime.InferenceSession(str(tmp_path / "o" / onnx.FILE))
    ids = torch.randint(0, VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(2))
    model: Any = load(source).model
    with torch.no_grad():
        own = model(ids).logits.double()
    given = torch.from_numpy(session.run(["logits"], {"input_ids": ids.numpy()})[0]).double()
    assert divergence(own.flatten(0, 1), given.flatten(0, 1)) < 1e-9
    nodes = [node for node in read(str(tmp_path / "o" / onnx.FILE)).graph.node if node.op_type == "MatMulNBits"]
    assert sorted({each.i for node in nodes for each in node.attribute if each.name == "bits"}) == [4, 8]
    untraceable = tiny_llama()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.onnx, "export", lambda *_, **__: untraceable.nothing)
        with pytest.raises(Refused, match=r"cannot trace a LlamaForCausalLM for ONNX .*nothing"):
            onnx.write(str(saved(tmp_path / "d", lambda w, _: Dense(w))), tmp_path / "x")
    assert nothing_left(tmp_path / "x")
