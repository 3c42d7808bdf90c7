"""GGUF files: blocks by their definitions, what transformers and llama.cpp compute from them, and what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM, Qwen3ForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

from eckart.errors import Refused
from eckart.jobs.exports._divergence import divergence
from eckart.jobs.exports._gguf_blocks import LEVELS, in_blocks, in_floats
from eckart.jobs.exports._gguf_words import vocabulary
from eckart.jobs.exports.gguf import FILE, TEXT, write
from eckart.models.transformers import load
from eckart.structures import Chain, Dense, Quantized, StructuredMatrix
from jobs.exports.test_codes import logits, saved
from support.attention import tiny_qwen2, tiny_qwen3
from support.commands import nothing_left
from support.tiny import CONTEXT, HIDDEN, VOCABULARY, tiny_gpt2, tiny_llama, tiny_tokenizer
from support.tiny import TEXT as WORDS


def matrix(rows: int = 3, columns: int = 128) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1], [1e-2], [0]])


def affine(w: Tensor) -> Tensor:
    return w + 0.5 * w.abs().max()


BLOCKS: dict[str, tuple[Quantized, str | None]] = {
    "4, symmetric": (Quantized.quantize(matrix(), 4, 32, symmetric=True), "Q4_0"),
    "2 a row": (Quantized.quantize(matrix(), 2, 128, symmetric=True), "Q4_0"),
    "4, affine": (Quantized.quantize(affine(matrix()), 4, 64), "Q4_1"),
    "5, symmetric": (Quantized.quantize(matrix(), 5, 32, symmetric=True), "Q5_0"),
    "5, affine": (Quantized.quantize(affine(matrix()), 5, 32), "Q5_1"),
    "6, affine": (Quantized.quantize(affine(matrix()), 6, 32), "Q8_0"),
    "8, symmetric": (Quantized.quantize(matrix(), 8, 32, symmetric=True), "Q8_0"),
    "8, affine": (Quantized.quantize(affine(matrix()).abs(), 8, 32), None),
    "its levels": (Quantized.quantize(matrix(), 4, 32, codebook=torch.tensor(LEVELS) / 127.0), "IQ4_NL"),
    "other levels": (Quantized.quantize(matrix(), 4, 32, codebook=torch.linspace(-1, 1, 16)), None),
    "groups of 48": (Quantized.quantize(matrix(3, 96), 4, 48), None),
    "80 inputs": (Quantized.quantize(matrix(3, 80), 4, 80), None),
    "tiny scales": (Quantized.quantize(matrix() * 1e-7, 4, 32, symmetric=True), None),
    "huge scales": (Quantized.quantize(matrix() * 1e7, 4, 32, symmetric=True), None),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_hold_the_numbers_of_the_codes(case: str) -> None:
    codes, wanted = BLOCKS[case]
    found = in_blocks(codes)
    assert (found and found[0]) == wanted
    if found is not None:
        kind, data = found
        numbers = torch.from_numpy(gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType[kind]))
        own = codes.to_dense().detach()
        greatest = own.abs().amax(1, keepdim=True) + codes.scales.abs().amax(1, keepdim=True) * 16
        assert bool(((numbers - own).abs() <= 2**-10 * greatest).all())
        assert len(data[0]) * 8 / codes.columns < codes.bits + 4


def test_codes_of_sixteen_bit_scales_lose_nothing() -> None:
    codes = Quantized.quantize(matrix().half(), 4, 32, symmetric=True)
    found = in_blocks(codes)
    assert found is not None
    numbers = torch.from_numpy(gguf.dequantize(found[1].numpy(), gguf.GGMLQuantizationType.Q4_0))
    assert torch.equal(numbers, codes.float().to_dense().detach())


@pytest.mark.parametrize(
    ("weight", "dtype", "wanted"),
    [
        (matrix(), torch.float32, "F16"),
        (matrix(), torch.bfloat16, "BF16"),
        (matrix() * 1e6, torch.float32, "F32"),
        (torch.cat([matrix(), matrix() * 1e-8]), torch.float32, "F32"),
        (torch.zeros(2, 1), torch.float32, "F16"),
    ],
)
def test_floats_lose_no_row(weight: Tensor, dtype: torch.dtype, wanted: str) -> None:
    kind, data = in_floats(weight, dtype)
    assert kind == wanted
    numbers = gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType[kind])
    rows = weight.abs().amax(1, keepdim=True)
    assert bool(((torch.from_numpy(np.array(numbers)).view_as(weight) - weight).abs() <= 2**-8 * rows).all())


def heads_of_128() -> Any:
    """A Qwen 3 with the one size of heads that transformers reads from GGUF."""
    config = tiny_qwen3().config
    config.head_dim = 128
    return Qwen3ForCausalLM(config).bfloat16().eval()


MODELS: dict[str, tuple[Any, Callable[[Tensor, int], StructuredMatrix], dict[str, Any], str]] = {
    "llama": (
        tiny_llama,
        lambda w, n: Quantized.quantize(w, 4, 32, symmetric=n % 2 == 0),
        {},
        "15 matrices: 7 in Q4_0, 7 in Q4_1, 1 in F16; run by transformers",
    ),
    "separate head": (
        lambda: tiny_llama(tied=False).bfloat16(),
        lambda w, n: Quantized.quantize(w, 8, 32, symmetric=True),
        {"embeddings": True},
        "16 matrices: 15 in Q8_0, 1 in BF16",
    ),
    "factors": (
        heads_of_128,
        lambda w, n: Chain(Dense(w[:, :4].clone()), Dense(w[:4].clone())),
        {"include": ["*down_proj"]},
        "in BF16",
    ),
    "qwen2": (lambda: tiny_qwen2().float(), lambda w, n: Quantized.quantize(w, 5, 32), {}, "14 in Q5_1, 2 in F16"),
}


@pytest.mark.parametrize("case", MODELS)
def test_transformers_computes_from_the_file_what_eckart_does(case: str, tmp_path: Path) -> None:
    make, fit, which, note = MODELS[case]
    source = saved(tmp_path / "m", fit, make(), make().dtype, **which)
    said = write(source, tmp_path / "o")
    assert note in said
    own: Any = load(source).model.float()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "o", gguf_file=FILE, dtype=torch.float32)
    apart = divergence(logits(own).double().flatten(0, 1), logits(found).double().flatten(0, 1))
    assert apart < 1e-3
    again = AutoTokenizer.from_pretrained(tmp_path / "o", gguf_file=FILE)
    assert again(TEXT).input_ids == tiny_tokenizer()(TEXT).input_ids
    assert again.eos_token == "<|end|>"
    fields = gguf.GGUFReader(tmp_path / "o" / FILE).fields
    assert fields["general.architecture"].contents() == {"qwen2": "qwen2", "factors": "qwen3"}.get(case, "llama")


def test_a_file_is_read_again_and_compressed_models_of_it_are_written(tmp_path: Path) -> None:
    write(saved(tmp_path / "m", lambda w, _: Quantized.quantize(w, 4, 32, symmetric=True)), tmp_path / "o")
    said = write(str(tmp_path / "o" / FILE), tmp_path / "again")
    assert "15 in F16" in said
    one, other = (load(str(tmp_path / name / FILE)).model for name in ("o", "again"))
    torch.testing.assert_close(logits(other), logits(one), rtol=0.02, atol=0.02)


def test_what_a_file_does_not_say_is_refused_by_name(tmp_path: Path) -> None:
    def coded(w: Tensor, _: int) -> Quantized:
        return Quantized.quantize(w, 4, 32)

    sizes = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT}
    window = MistralForCausalLM(MistralConfig(**sizes, sliding_window=16)).eval()
    scaled = tiny_llama()
    scaled.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    biased = tiny_llama()
    biased.config.attention_bias = True
    biased = type(biased)(biased.config).eval()
    for name, (model, which, message) in {
        "gpt2": (tiny_gpt2(), {"include": ["*c_fc"]}, "is a GPT2LMHeadModel, and GGUF is written for LlamaForC"),
        "window": (window, {}, "sliding_window=16"),
        "rope": (scaled, {}, "rope_type='linear'"),
        "heads": (tiny_qwen3().float(), {}, "head_dim=8"),
        "biases": (biased, {}, "biases .attention_bias. that transformers does not read"),
    }.items():
        source = saved(tmp_path / name, lambda w, _: Dense(w) if w.shape[1] % 32 else coded(w, 0), model, **which)
        with pytest.raises(Refused, match=message):
            write(source, tmp_path / "o")
    assert nothing_left(tmp_path / "o")


def sentencepiece() -> Fast:
    """A tokenizer of Llama 2: spaces are marks, what is in no token is bytes."""
    tokenizer = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([word for line in WORDS.splitlines() for word in line.split(" ")], trainer)
    return Fast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_tokens_are_written_with_their_kinds() -> None:
    found = vocabulary(tiny_tokenizer(), VOCABULARY + 2)
    assert (found["ggml.model"], found["ggml.pre"]) == ("gpt2", "gpt-2")
    assert found["ggml.token_type"] == [3, *[1] * (VOCABULARY - 1), 5, 5]
    assert found["ggml.tokens"][-1] == f"[PAD{VOCABULARY + 1}]"
    found = vocabulary(sentencepiece(), VOCABULARY)
    assert found["ggml.model"] == "llama"
    assert found["ggml.token_type"][0] == 2
    scores = dict(zip(found["ggml.tokens"], found["ggml.scores"], strict=True))
    assert all(scores[token] <= 0 for token in scores)
    assert found["ggml.add_space_prefix"] is True


def served(directory: Path) -> Any:
    """llama.cpp with the file of a directory."""
    engine = importlib.import_module("xllamacpp")
    options = engine.CommonParams()
    options.model.path = str(directory / FILE)
    options.cpuparams.n_threads, options.warmup = 1, False
    return engine.Server(options)


def test_a_tokenizer_of_sentencepiece_makes_the_same_tokens(tmp_path: Path) -> None:
    source = saved(tmp_path / "m", lambda w, _: Dense(w))
    (tmp_path / "m" / "tokenizer.json").unlink()
    sentencepiece().save_pretrained(source)
    assert "its tokens of a text" not in write(source, tmp_path / "o")
    again = AutoTokenizer.from_pretrained(tmp_path / "o", gguf_file=FILE)
    for text in (TEXT, WORDS, "two  spaces"):
        assert again(text, add_special_tokens=False).input_ids == sentencepiece()(text).input_ids
    if importlib.util.find_spec("xllamacpp") is not None:
        answer = served(tmp_path / "o").handle_completions({"prompt": WORDS, "n_predict": 1})
        assert answer["usage"]["prompt_tokens"] == len(sentencepiece()(WORDS).input_ids)


def digits(tokenizer: Fast) -> Fast:
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def test_ways_to_split_text_have_names_or_are_refused() -> None:
    assert vocabulary(digits(tiny_tokenizer()), VOCABULARY)["ggml.pre"] == "smollm"
    other = tiny_tokenizer()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(Refused, match=r"splits text by .*Whitespace.*GGUF has no name"):
        vocabulary(other, VOCABULARY)
    words = Fast(tokenizer_object=Backend(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(Refused, match="is WordLevel, and GGUF is written for BPE"):
        vocabulary(words, 1)


def test_llama_cpp_computes_what_eckart_does(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    source = saved(tmp_path / "m", lambda w, n: Quantized.quantize(w, 4, 32, symmetric=n % 2 == 0))
    write(source, tmp_path / "o")
    server, own = served(tmp_path / "o"), load(source)
    ids = own.tokenizer(WORDS).input_ids
    asked = {"prompt": ids, "n_predict": 1, "n_probs": VOCABULARY, "temperature": 1, "top_k": 0, "min_p": 0, "top_p": 1}
    answer = server.handle_completions(asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    given = torch.full((1, VOCABULARY), -torch.inf, dtype=torch.float64)
    for each in answer:
        given[0, each["id"]] = each["logprob"]
    model: Any = own.model
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, -1:].double()
    assert divergence(wanted, given) < 0.02  # activations are rounded to 8 bits there
    assert server.handle_completions({"prompt": TEXT, "n_predict": 1})["usage"]["prompt_tokens"] == len(
        own.tokenizer(TEXT).input_ids
    )
