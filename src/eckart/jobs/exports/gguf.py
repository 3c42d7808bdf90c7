"""one file, model.gguf, as llama.cpp and what is built on it run it"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.jobs.exports._divergence import compared, drawn, logits
from eckart.jobs.exports._gguf_blocks import in_blocks, in_floats
from eckart.jobs.exports._gguf_words import vocabulary
from eckart.jobs.exports._ordinary import made_dense
from eckart.models import transformers as hf
from eckart.models.modules import StructuredEmbedding, StructuredLinear
from eckart.structures import Quantized

FILE = "model.gguf"
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""What GGUF calls the classes that are written."""
TEXT = "In 1936 two people wrote 12 pages;\n\n  they're still read: naïve, 東京, 3.14159 (and 2.5e-3)?"
"""Of which the tokens are compared."""


def write(source: str, out: str | Path) -> str:
    """Writes a language model like Llama as a GGUF file: integers in groups of 32 inputs or multiples stay as they are.

    Codes of 2 to 4 bits become Q4_0 (symmetric) or Q4_1, of 5 bits Q5_0 or Q5_1, of 6 to 8 bits Q8_0, a codebook with
    the levels of IQ4_NL that; their scales are rounded to 16 bits. All other matrices, structured or not, become
    numbers of 16 bits, in which factors and zeros take as many bytes as ordinary matrices; vectors stay in 32 bits.

    Returns:
        The types, the divergence of what transformers reads from the file, and whether it makes the same tokens.

    Raises:
        Refused: a class, a tokenizer or hyper-parameters that GGUF, or the reader of transformers, does not say, the
            package gguf is missing, or `out` is taken.
    """
    check_target(Path(out))
    if any(importlib.util.find_spec(package) is None for package in ("gguf", "accelerate")):
        raise Refused("GGUF is written and checked by packages that are not installed: pip install gguf accelerate")
    loaded = hf.load(source)
    model: Any = loaded.model
    dtype = model.dtype
    fields = hyper_parameters(model, source)
    words = vocabulary(loaded.tokenizer, model.config.vocab_size)
    tokens = drawn(model.float())
    own = logits(model, tokens)
    kinds = StructuredLinear | StructuredEmbedding
    coded = {
        f"{name}.weight": module.structure
        for name, module in model.named_modules()
        if isinstance(module, kinds) and isinstance(module.structure, Quantized)
    }
    made_dense(model)
    if biased := [flag for flag in ("attention_bias", "mlp_bias") if getattr(model.config, flag, False)]:
        raise Refused(
            f"{source} has biases ({biased[0]}) that transformers does not read from GGUF: compress by a method that "
            "adds none, such as gptq, or export --to dense"
        )
    stored = {name: entries(model, name, weight, coded, dtype) for name, weight in model.named_parameters()}
    with new_directory(Path(out)) as partial:
        _write(partial / FILE, fields, words, stored)
        again = hf.load(str(partial / FILE))
        said = compared(own, logits(again.model, tokens), "transformers")
        same = loaded.tokenizer(TEXT)["input_ids"] == again.tokenizer(TEXT)["input_ids"]
    count = Counter(kind for _, kind, data in stored.values() if data.ndim == 2)
    listed = ", ".join(f"{number} in {kind}" for kind, number in count.most_common())
    tokens_too = "" if same else f"; its tokens of a text with numbers are others, as it knows no {words['ggml.pre']}"
    return f"{sum(count.values())} matrices: {listed}; {said}{tokens_too}"


def hyper_parameters(model: Any, source: str) -> dict[str, Any]:
    """The fields that say the sizes of a model, with its architecture under the empty name.

    Raises:
        Refused: another class, or what the fields of its architecture do not say.
    """
    kind, config = type(model).__name__, model.config
    if kind not in ARCHITECTURES:
        raise Refused(f"{source} is a {kind}, and GGUF is written for {', '.join(ARCHITECTURES)}: export --to dense")
    rope = dict(config.rope_parameters or {})
    whole = config.hidden_size // config.num_attention_heads
    size = getattr(config, "head_dim", None) or whole
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    unsaid = {
        "rope_type": rope.get("rope_type", "default") != "default" and rope["rope_type"],
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1 and rope["partial_rotary_factor"],
        "hidden_act": config.hidden_act != "silu" and config.hidden_act,
        "sliding_window": (sliding or config.max_position_embeddings) < config.max_position_embeddings and sliding,
        "head_dim": size != {"Qwen2ForCausalLM": whole, "Qwen3ForCausalLM": 128}.get(kind, size) and size,
    }
    for name, value in unsaid.items():
        if value:
            raise Refused(
                f"{source} has {name}={value!r}, which GGUF or the reader of transformers does not say: export --to "
                "dense"
            )
    return {
        "": ARCHITECTURES[kind],
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": size,
        "rope.freq_base": float(rope.get("rope_theta", 10000.0)),
        "vocab_size": config.vocab_size,
    }


def entries(
    model: Any, name: str, weight: Tensor, coded: Mapping[str, Quantized], dtype: torch.dtype
) -> tuple[str, str, Tensor]:
    """What GGUF calls a parameter, its type, and its bytes (out, bytes), or its numbers where it is a vector.

    Raises:
        Refused: GGUF has no name for it.
    """
    import gguf

    config = model.config
    architecture = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == ARCHITECTURES[type(model).__name__])
    base, _, end = name.rpartition(".")
    called = gguf.get_tensor_name_map(architecture, config.num_hidden_layers).get_name(base)
    if called is None:
        raise Refused(f"GGUF has no name for {name} of a {type(model).__name__}: export --to dense")
    kind, data = "F32", weight.detach().float()
    if weight.ndim == 2:
        found = in_blocks(coded[name]) if name in coded else None
        kind, data = in_floats(weight.detach(), dtype) if found is None else found
    if ARCHITECTURES[type(model).__name__] == "llama" and called.endswith((".attn_q", ".attn_k")):
        heads = config.num_attention_heads if called.endswith("q") else config.num_key_value_heads
        # Pairs of rotary dimensions stand side by side.
        data = data.view(heads, 2, -1, *data.shape[1:]).transpose(1, 2).reshape(data.shape)
    return f"{called}.{end}", kind, data.contiguous()


def _write(
    file: Path, fields: Mapping[str, Any], words: Mapping[str, Any], stored: Mapping[str, tuple[str, str, Tensor]]
) -> None:
    import gguf

    architecture = fields[""]
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    size = Counter[str]()
    for _, kind, data in stored.values():
        size[kind] += data.numel()
    most = size.most_common(1)[0][0]
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if most == "F32" else f"MOSTLY_{most}"])
    for name, value in [(f"{architecture}.{n}", v) for n, v in fields.items() if n] + [
        (f"tokenizer.{n}", v) for n, v in words.items()
    ]:
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](name, value)
    for name, kind, data in stored.values():
        writer.add_tensor(name, data.numpy(), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
