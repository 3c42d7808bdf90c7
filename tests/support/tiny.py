"""Tiny random language models and a tiny tokenizer, made in memory: two blocks, hidden size 32, vocabulary 300."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers import PreTrainedTokenizerFast as Fast

M = TypeVar("M", bound=PreTrainedModel)

VOCABULARY = 300
HIDDEN = 32
CONTEXT = 512

TEXT = """A matrix is a table of numbers, and most of the matrices that people meet are simpler than their size says:
a few directions carry nearly all of what they do, and the rest is noise. The best approximation of a matrix by one of
smaller rank keeps the largest singular values and leaves out the others. That is the theorem of Eckart and Young.
"""


def tiny_llama(tied: bool = True, gqa: bool = True, seed: int = 0) -> LlamaForCausalLM:
    """A LLaMA with tied or separate embeddings, and one or two query heads for each key head."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2 if gqa else 4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def tiny_mixtral(seed: int = 0) -> MixtralForCausalLM:
    """A Mixtral of four experts, of which two a token; their tensors are fused."""
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _drawn(MixtralForCausalLM, config, seed)


def tiny_qwen3_moe(seed: int = 0) -> Qwen3MoeForCausalLM:
    """As `tiny_mixtral`; its checkpoints hold each expert by itself, under the names that eckart gives them too."""
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        moe_intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _drawn(Qwen3MoeForCausalLM, config, seed)


def tiny_gpt_oss(seed: int = 0) -> GptOssForCausalLM:
    """As `tiny_mixtral`; its experts are stored transposed, gate and up interleaved, with biases."""
    config = GptOssConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return _drawn(GptOssForCausalLM, config, seed)


def _drawn(kind: type[M], config: PretrainedConfig, seed: int) -> M:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        for name, p in model.named_parameters():
            if ".experts." in name:
                torch.nn.init.normal_(p, std=0.2)
    return model


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """A GPT-2: its matrices are transformers' Conv1D, stored (in, out), with biases."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=HIDDEN,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()


def tiny_tokenizer() -> Fast:
    """A byte-level BPE tokenizer of 300 tokens that loses nothing; token 0 ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return Fast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>", model_max_length=CONTEXT)


def save_tiny(directory: str | Path, model: PreTrainedModel | None = None) -> Path:
    """Writes a model (by default `tiny_llama()`) and the tokenizer to a directory that transformers loads."""
    (tiny_llama() if model is None else model).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return Path(directory)
