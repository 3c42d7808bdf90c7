"""Experts of every kind of mixture: apart they give the same outputs, together again they are the same tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as t
from torch import nn

from eckart.models.fused_experts import fuse, is_packed, unfuse
from support.zoo import VOCABULARY, ids

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
DBRX = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "n_heads": 4,
    "n_layers": 2,
    "max_seq_len": 64,
    "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
    "pad_token_id": 0,
}
MLA = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
DEEPSEEK = {**SMALL, **MLA, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4}
LLAMA4 = {**SMALL, "intermediate_size_mlp": 24, "interleave_moe_layer_step": 1, "attention_chunk_size": 32}
JAMBA = {**SMALL, "use_mamba_kernels": False, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Mixtral": ("MixtralForCausalLM", "MixtralConfig", SMALL),
    "Qwen2": ("Qwen2MoeForCausalLM", "Qwen2MoeConfig", {**SMALL, "shared_expert_intermediate_size": 16}),
    "Qwen3": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", SMALL),
    "DeepSeek V3": ("DeepseekV3ForCausalLM", "DeepseekV3Config", DEEPSEEK),
    "GPT-OSS": ("GptOssForCausalLM", "GptOssConfig", {**SMALL, **ROPE}),
    "Granite": ("GraniteMoeForCausalLM", "GraniteMoeConfig", SMALL),
    "Phi": ("PhimoeForCausalLM", "PhimoeConfig", SMALL),
    "OLMoE": ("OlmoeForCausalLM", "OlmoeConfig", SMALL),
    "Jamba": ("JambaForCausalLM", "JambaConfig", JAMBA),
    "JetMoE": ("JetMoeForCausalLM", "JetMoeConfig", {**SMALL, "kv_channels": 4}),
    "Llama 4": ("Llama4ForCausalLM", "Llama4TextConfig", LLAMA4),
    "DBRX": ("DbrxForCausalLM", "DbrxConfig", DBRX),
}


@pytest.mark.parametrize("name", KINDS)
def test_experts_apart_and_together(name: str) -> None:
    kind, config, options = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = getattr(t, kind)(getattr(t, config)(**options)).eval()
        for p in model.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.2)
    state, tokens = {n: v.clone() for n, v in model.state_dict().items()}, ids()
    with torch.no_grad():
        before = model(tokens).logits
        assert unfuse(model)
        assert not any(p.ndim == 3 for n, p in model.named_parameters() if "conv" not in n)
        assert not any(map(is_packed, model.modules()))
        torch.testing.assert_close(model(tokens).logits, before, rtol=1e-3, atol=1e-4)
        fuse(model)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(state[n], v) for n, v in model.state_dict().items())
