"""GGUF files of every type that the package gguf decodes are read, and what it does not decode is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from eckart.errors import Refused
from eckart.jobs.exports._gguf_words import vocabulary
from eckart.jobs.exports.gguf import FILE, _write, entries, hyper_parameters
from eckart.models.transformers import load
from support.tiny import VOCABULARY, tiny_tokenizer

TYPES = sorted(kind.name for kind in gguf.quants._type_traits)
HEADS = 4


def made(layers: int) -> Any:
    """A model whose matrices fill blocks of 256."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def write(directory: Path, kinds: list[str]) -> dict[str, tuple[str, str, Tensor]]:
    """A file whose matrices are drawn bytes of these types, one after the other; returns what is in it by name."""
    model = made(-(-len(kinds) // 7))
    draw = torch.Generator().manual_seed(0)
    stored, left = {}, list(kinds)
    for name, weight in model.named_parameters():
        called, kind, data = entries(model, name, weight, {}, torch.float32)
        if "proj" in name and left:
            kind = left.pop()
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
            # Halves of numbers of 16 bits with the highest bits 0 are neither infinite nor NaN.
            data = torch.randint(0, 64, (len(weight), 256 // block * size), generator=draw).to(torch.uint8)
        stored[name] = called, kind, data
    assert not left
    _write(directory / FILE, hyper_parameters(model, "made"), vocabulary(tiny_tokenizer(), VOCABULARY), stored)
    return stored


def test_every_type_is_read_as_its_package_decodes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(TYPES) > 20
    stored = write(tmp_path, TYPES)
    found = dict(load(str(tmp_path / FILE)).model.named_parameters())
    assert capsys.readouterr().err == ""  # no bar of another library among ours
    checked = set()
    for name, (called, kind, data) in stored.items():
        if kind in TYPES:
            own = torch.from_numpy(gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType[kind]))
            if called.split(".")[2] in ("attn_q", "attn_k"):
                own = own.view(HEADS, -1, 2, 256).transpose(1, 2).reshape(256, 256)
            assert own.isfinite().all()
            assert torch.equal(found[name].detach(), own), kind
            checked.add(kind)
    assert checked == set(TYPES)


def test_a_type_that_is_not_decoded_is_refused_by_its_name(tmp_path: Path) -> None:
    unknown = next(kind.name for kind in gguf.GGMLQuantizationType if kind.name in ("Q1_0", "Q8_K"))
    write(tmp_path, [unknown])
    with pytest.raises(Refused, match=unknown):
        load(str(tmp_path / FILE))
