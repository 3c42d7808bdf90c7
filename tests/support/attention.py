"""Tiny models with attention of every sort, in float64, and their groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from eckart import METHODS
from support.tiny import CONTEXT, HIDDEN, VOCABULARY, tiny_gpt2, tiny_llama

CARD = METHODS["modegpt"]

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}


def seeded(make: type, config: object) -> nn.Module:
    """A model of a config with biases that are not zero, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = make(config).double().eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.5)
    return model


def tiny_opt() -> nn.Module:
    return seeded(
        OPTForCausalLM, OPTConfig(**SHAPE, ffn_dim=64, num_hidden_layers=2, word_embed_proj_dim=HIDDEN, init_std=0.2)
    )


def tiny_bert() -> nn.Module:
    return seeded(
        BertForMaskedLM, BertConfig(**SHAPE, intermediate_size=64, num_hidden_layers=2, initializer_range=0.2)
    )


def tiny_qwen2() -> nn.Module:
    config = Qwen2Config(**SHAPE, intermediate_size=64, num_hidden_layers=2, num_key_value_heads=2)
    return seeded(Qwen2ForCausalLM, config)


def tiny_qwen3() -> nn.Module:
    config = Qwen3Config(**SHAPE, intermediate_size=64, num_hidden_layers=2, num_key_value_heads=2, head_dim=8)
    return seeded(Qwen3ForCausalLM, config)


MODELS = {
    "llama": lambda: tiny_llama(gqa=False).double(),
    "llama-gqa": lambda: tiny_llama().double(),
    "gpt2": lambda: tiny_gpt2().double(),
    "opt": tiny_opt,
    "bert": tiny_bert,
    "qwen2": tiny_qwen2,
    "qwen3": tiny_qwen3,
}


def ids() -> Tensor:
    return torch.randint(0, VOCABULARY, (8, 16), generator=torch.Generator().manual_seed(3))
