"""Plain tensors: the loader of the documentation computes from them what eckart does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from eckart.errors import Refused
from eckart.jobs.exports import smaller
from eckart.jobs.exports._divergence import drawn
from eckart.jobs.exports._factors import Product, even, tensors
from eckart.jobs.exports.plain import FILE, write
from eckart.models.modules import Structured
from eckart.models.transformers import load
from eckart.structures import Chain, Dense, Diagonal, Permutation, Quantized, RoundedInput, StructuredMatrix, Sum
from jobs.exports.test_codes import logits, saved
from support.commands import nothing_left
from support.directories import save_zoo
from support.tiny import tiny_gpt2, tiny_llama, tiny_mixtral, tiny_tokenizer
from support.zoo import zoo

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "plain.md"


def loader() -> Any:
    """The function of the page that loads a directory."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M)
    space: dict[str, Any] = {"__name__": "plain_loader"}
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), space)
    return space["load"]


def factors(w: Tensor, rank: int = 3) -> Chain:
    return Chain(Dense(w[:, :rank].clone()), Diagonal(torch.arange(1.0, rank + 1).to(w)), Dense(w[:rank].clone()))


def of_all_kinds(w: Tensor, place: int) -> StructuredMatrix:
    kinds: list[StructuredMatrix] = [
        factors(w),
        Quantized.quantize(w, 4, 16),
        Sum(Quantized.quantize(w, 2, 24, symmetric=True), factors(w, 1)),
        Quantized.quantize(w, 3, 16, codebook=torch.linspace(-1, 1, 8).to(w)),
        Quantized.quantize(w, 5, 64),
        Chain(Quantized.quantize(w, 8, 16), Permutation(torch.arange(w.shape[1]).flip(0))),
        Chain(Dense(torch.eye(len(w)).to(w)), Dense(w)),
    ]
    return kinds[place % len(kinds)]


@pytest.mark.parametrize("make", [tiny_llama, lambda: tiny_llama(tied=False).bfloat16(), tiny_gpt2])
def test_the_loader_of_the_page_computes_what_eckart_does(make: Any, tmp_path: Path) -> None:
    model = make()
    source = saved(tmp_path / "m", of_all_kinds, model, model.dtype)
    said = write(source, tmp_path / "o")
    ordinary = r"(?:, (\d+) compressed ones as ordinary matrices \(Chain\))?"
    told = re.match(rf"\d+ matrices as factors and codes{ordinary}; run by plain PyTorch", said)
    assert told
    found, own = loader()(tmp_path / "o"), load(source).model
    assert found.dtype == model.dtype
    assert not any("eckart" in type(module).__module__ for module in found.modules())
    rounding = 0.1 if model.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(logits(found), logits(own), rtol=rounding, atol=rounding)
    stored = load_file(tmp_path / "o" / FILE)
    kept = {name.split(".factors.")[0] for name in stored if ".factors." in name}
    assert said.startswith(f"{len(kept)} matrices")
    compressed = sum(isinstance(module, Structured) for module in own.modules())
    assert int(told[1] or 0) == compressed - len(kept)
    assert not any(f"{name}.weight" in stored for name in kept)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("columns", [1, 7, 12, 36])
def test_codes_of_any_width_are_read_as_they_were(bits: int, columns: int) -> None:
    w = torch.randn(3, columns, generator=torch.Generator().manual_seed(bits)) + 0.3
    codes = Quantized.quantize(w, bits, 12)
    parts = tensors([[codes]])
    eye = torch.eye(columns)
    torch.testing.assert_close(Product("", parts, None)(eye).T, codes.to_dense().detach(), rtol=0, atol=1e-6)
    assert even(codes)[0].shape[1] * 12 >= columns
    if columns == 12:
        assert parts["0.0.codes"].shape[1] == {2: 3, 3: 6, 4: 6}.get(bits, 12)


def test_what_is_no_matrix_is_refused_by_name(tmp_path: Path) -> None:
    def rounded(w: Tensor, place: int) -> StructuredMatrix:
        return RoundedInput(Quantized.quantize(w, 8, 16, symmetric=True)) if place == 3 else Dense(w)

    with pytest.raises(Refused, match=r"o_proj of .* rounds its inputs"):
        write(saved(tmp_path / "rounded", rounded), tmp_path / "o")
    experts = saved(tmp_path / "experts", of_all_kinds, tiny_mixtral(), include=["*q_proj"])
    with pytest.raises(Refused, match="is a mixture of experts"):
        write(experts, tmp_path / "o")
    assert nothing_left(tmp_path / "o")


@pytest.mark.filterwarnings("ignore:.*multiplies by its weight")
def test_a_map_whose_weight_the_model_reads_is_refused_by_name(tmp_path: Path) -> None:
    model, _ = zoo()["Mamba"]()
    source = saved(tmp_path / "m", lambda w, _: Quantized.quantize(w, 4, 4), model, include=["*.dt_proj"])
    with pytest.raises(Refused, match=r"the weight of backbone\.layers\.0\.mixer\.dt_proj itself, .*--exclude"):
        write(source, tmp_path / "o")
    assert nothing_left(tmp_path / "o")


def test_a_model_that_wants_more_than_tokens_is_refused(tmp_path: Path) -> None:
    source = save_zoo("T5", tmp_path / "m")
    with pytest.raises(Refused, match=r"tokens alone, and a T5ForConditionalGeneration wants a .*\.jsonl"):
        drawn(load(str(source)).model)  # as `onnx` does, whose packages may be missing
    with pytest.raises(Refused, match="tokens alone, and a T5ForConditionalGeneration wants"):
        smaller.write(str(source), tmp_path / "o")


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    small = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    LlamaForSequenceClassification(small).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(Refused, match="LlamaForSequenceClassification"):
        write(str(tmp_path / "model"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
