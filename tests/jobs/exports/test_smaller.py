"""Compressed models as smaller ones that plain transformers loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel

import eckart
from eckart.cli.app import main
from eckart.errors import Refused
from eckart.jobs.exports import smaller
from eckart.jobs.exports.smaller import write as to_smaller_directory
from eckart.models.narrower import Narrowing
from support.attention import tiny_qwen2, tiny_qwen3
from support.commands import nothing_left
from support.tiny import VOCABULARY, save_tiny, tiny_gpt2, tiny_llama

PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert not any(name.startswith("eckart") for name in sys.modules)
torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[2])
"""


def ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (8, 16), generator=torch.Generator().manual_seed(3))


def compressed(directory: Path, model: Any, method: str = "modegpt-narrow", keep: float = 0.6, **how: Any) -> str:
    eckart.compress(model, method, keep=keep, calibration=ids(), **{"of": "linear-parameters", **how})
    return str(save_tiny(directory, model))


def numbers(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
    return found


def test_plain_transformers_loads_a_narrower_model_with_the_same_logits(tmp_path: Path, capsys: Any) -> None:
    model = tiny_llama()
    source, out = compressed(tmp_path / "small", model), tmp_path / "smaller"
    assert main(["export", source, "--to", "smaller", "--out", str(out)]) == 0
    config = numbers(out)
    width, size = config["intermediate_size"], config["head_dim"]
    assert width < 64
    assert size < 8
    assert "quantization_config" not in config
    assert f"hidden units of an MLP 64 to {width}; outputs of a head 8 to {size}" in capsys.readouterr().err
    file = tmp_path / "tokens.pt"
    torch.save(ids(), file)
    subprocess.run([sys.executable, "-c", PLAIN, str(out), str(file)], check=True)
    torch.testing.assert_close(torch.load(file), model(ids()).logits, rtol=1e-4, atol=1e-4)
    assert main(["export", source, "--to", "smaller", "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("make", "how", "field"),
    [
        (tiny_llama, {"method": "modegpt", "allocation": "greedy", "include": ["*.mlp.*"]}, "intermediate_size"),
        (tiny_gpt2, {"include": ["*.mlp.*"]}, "n_inner"),
        (lambda: tiny_qwen3().bfloat16(), {"include": ["*.mlp.*"]}, "intermediate_size"),
        (lambda: tiny_qwen2().float(), {}, "head_dim"),
    ],
)
def test_round_trips(make: Any, how: dict[str, Any], field: str, tmp_path: Path) -> None:
    model: PreTrainedModel = make()
    to_smaller_directory(compressed(tmp_path / "small", model, **how), tmp_path / "smaller")
    config = numbers(tmp_path / "smaller")
    assert config[field] < {"head_dim": 8, "n_inner": 128}.get(field, 64)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller", dtype=model.dtype)
    rounding = 0.05 if model.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(loaded(ids()).logits, model(ids()).logits, rtol=rounding, atol=rounding)


def test_sixteen_bits_are_judged_by_their_weights_and_not_by_their_products(tmp_path: Path) -> None:
    config = tiny_llama().config
    config.num_hidden_layers = 16
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config).eval().bfloat16()
    with torch.no_grad():
        for block in model.model.layers:
            attention = block.self_attn
            for layer in (attention.q_proj, attention.k_proj):
                layer.weight.view(-1, 8, 32)[:, [1, 5]] = 0  # what is rotated as one
            attention.o_proj.weight.view(32, -1, 8)[..., 6:] = 0
    source, outputs = str(save_tiny(tmp_path / "small", model)), list[torch.Tensor]()
    before = smaller._outputs
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(smaller, "_outputs", lambda model, tokens: outputs.append(before(model, tokens)) or outputs[-1])
        to_smaller_directory(source, tmp_path / "smaller")
    wanted, given = outputs
    narrow = AutoModelForCausalLM.from_pretrained(tmp_path / "smaller")
    assert narrow.dtype == torch.bfloat16
    tokens = torch.arange(smaller.TOKENS)[None]
    # Products that are rounded to bfloat16 are apart by more than the weights of the smaller model make them.
    apart = (before(narrow, tokens) - before(model, tokens)).square().mean()
    assert apart > 4 * (given - wanted).square().mean()


def test_what_cannot_be_smaller_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = str(save_tiny(tmp_path / "dense", tiny_llama()))
    with pytest.raises(Refused, match=r"no units that all layers can do without.*such as modegpt-narrow"):
        to_smaller_directory(dense, tmp_path / "x")
    biased = compressed(tmp_path / "biased", tiny_qwen2().float(), "modegpt")
    with pytest.raises(Refused, match="no place for the biases"):
        to_smaller_directory(biased, tmp_path / "x")
    model: Any = tiny_gpt2()
    for block in model.transformer.h:  # in configurations of GPT-2 heads are as large as the stream over their number
        nn.init.zeros_(block.attn.c_proj.weight[:8])
    small = str(save_tiny(tmp_path / "heads", model))
    with pytest.raises(Refused, match="no units that all layers"):
        to_smaller_directory(small, tmp_path / "x")
    source = compressed(tmp_path / "small", tiny_llama())
    narrow = Narrowing.narrow
    monkeypatch.setattr(Narrowing, "narrow", lambda self, m: (narrow(self, m), m.lm_head.weight.data.zero_()))
    with pytest.raises(Refused, match="does something else than"):
        to_smaller_directory(source, tmp_path / "x")
    assert nothing_left(tmp_path / "x")
