"""A Llama whose channels stand in another order: the same outputs, and no trace of the groups of a quantized file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def shuffled(model: Any, seed: int = 0) -> None:
    """Puts the channels of the residual stream, the units of every MLP and the values of every head in random orders.

    The weights of smollm2 lie on the grid of a 4-bit file, one scale for 32 neighbours in a row. Neighbours in another
    order have scales of all kinds, as weights have that never were quantized.

    Args:
        model: a causal language model with the layers of Llama, dense; changed in place.
        seed: of the orders.
    """
    generator = torch.Generator().manual_seed(seed)

    def order(size: int) -> Tensor:
        return torch.randperm(size, generator=generator)

    def pick(module: Any, dim: int, index: Tensor) -> None:
        module.weight = nn.Parameter(module.weight.index_select(dim, index), requires_grad=False)

    inner = model.model
    tied = model.lm_head.weight is inner.embed_tokens.weight
    stream = order(model.config.hidden_size)
    pick(inner.embed_tokens, 1, stream)
    for layer in inner.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            pick(reader, 1, stream)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            pick(norm, 0, stream)
        for writer in (attention.o_proj, mlp.down_proj):
            pick(writer, 0, stream)
        units = order(model.config.intermediate_size)
        pick(mlp.gate_proj, 0, units)
        pick(mlp.up_proj, 0, units)
        pick(mlp.down_proj, 1, units)
        size = attention.head_dim
        values = order(size)
        for matrix, dim in ((attention.v_proj, 0), (attention.o_proj, 1)):
            heads = torch.arange(matrix.weight.shape[dim] // size)
            pick(matrix, dim, (heads[:, None] * size + values).flatten())
    pick(inner.norm, 0, stream)
    if tied:
        model.lm_head.weight = inner.embed_tokens.weight
    else:
        pick(model.lm_head, 1, stream)
