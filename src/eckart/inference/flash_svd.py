"""Inference in tiles of tokens: what is as wide as an MLP or all heads of an attention is never held for all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.inference._tiles import decoder, encoder, tokenwise
from eckart.inference.contract import inside
from eckart.structures._checks import size_option


@inside("flash-svd", paper="Shao et al. 2025, arXiv 2508.01506", saves="memory of activations")
@contextmanager
def tiled(model: nn.Module, tokens: int = 128) -> Iterator[list[str]]:
    """Inside, MLPs and attentions of a transformers model take their tokens in tiles, and give the same outputs.

    A call on n tokens holds the hidden units, the queries, the scores and the factors' products of one tile at a time,
    beside n tokens at the width of the model; keys and values are held for as many sequences as fit in a tile, for one
    long sequence, or, with a key-value cache, for all. Calls on no more tokens than a tile, as in decoding, run as
    without it. Matrices may be dense or of any structure. Only the `forward` of modules is replaced: names and tensors
    stay, and the model can be saved. Hooks on an attention's matrices are called once for each tile.

    The idea of FlashSVD (Shao et al. 2025, arXiv 2508.01506), over tokens instead of over the hidden units.

    Args:
        model: in eval mode, with `sdpa` attention; the attentions and MLPs of Llama, Mistral, Qwen, Gemma 3, Granite,
            BERT and RoBERTa and of what shares their code. Embeddings, norms and the head stay as they are: where
            logits of all positions are not needed, call the model with `logits_to_keep=1`.
        tokens: tokens in a tile.

    Yields:
        The names of the modules that run in tiles.

    Raises:
        Refused: a model in training mode, with nothing that can run in tiles, with another attention
            implementation, or one that something else patched.

    >>> import torch, transformers, eckart
    >>> config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> model = transformers.BertModel(config).eval()
    >>> ids = torch.randint(50, (8, 64))
    >>> whole = model(ids).last_hidden_state
    >>> with eckart.tiled(model, tokens=128) as names:
    ...     print(names, torch.allclose(model(ids).last_hidden_state, whole, atol=1e-5))
    ['encoder.layer.0', 'encoder.layer.0.attention'] True
    """
    size_option("tiled", "tokens", tokens)
    if model.training:
        raise Refused("tiled is for inference: call model.eval() first")
    found = {
        name: (module, _TILES[kind]) for name, module in model.named_modules() if (kind := _kind(module)) in _TILES
    }
    if not found:
        raise Refused(
            f"tiled: {type(model).__name__} has no attention or MLP that can run in tiles; those of transformers with "
            f"these classes can: {', '.join(sorted(_TILES))}"
        )
    for name, (module, (attribute, tile)) in found.items():
        if attribute in vars(module):
            raise Refused(f"tiled: {name}.{attribute} was replaced already, by another tiled() or by a hook: undo that")
        if tile in (decoder, encoder) and (used := _implementation(module)) != "sdpa":
            raise Refused(f"tiled: {name} uses {used!r} attention; call model.set_attn_implementation('sdpa') first")
    try:
        for module, (attribute, tile) in found.values():
            setattr(module, attribute, tile(module, tokens))
        yield list(found)
    finally:
        for module, (attribute, _) in found.values():
            vars(module).pop(attribute, None)


def _kind(module: nn.Module) -> str:
    kind = type(module)
    if getattr(module, "is_cross_attention", False) or not kind.__module__.startswith("transformers.models."):
        return ""
    return kind.__name__


def _implementation(attention: Any) -> str | None:
    config: Any = attention.self.config if hasattr(attention, "self") else attention.config
    return config._attn_implementation  # type: ignore[no-any-return]


def _mlp(module: nn.Module, tokens: int) -> Callable[[Tensor], Tensor]:
    return tokenwise(module.forward, tokens)


def _feed_forward(module: Any, tokens: int) -> Callable[[Tensor], Tensor]:
    return tokenwise(module.feed_forward_chunk, tokens)


_DECODERS = "Llama Mistral Mixtral Qwen2 Qwen2Moe Qwen3 Qwen3Moe Gemma Gemma3 Granite"
_GATED = "Llama Mistral Qwen2 Qwen2Moe Qwen3 Qwen3Moe Gemma Gemma2 Gemma3 Granite SmolLM3"
_ENCODERS = "Bert Roberta XLMRoberta Camembert Electra"

_TILES: dict[str, tuple[str, Callable[[Any, int], Callable[..., Any]]]] = {
    **{f"{name}Attention": ("forward", decoder) for name in _DECODERS.split()},
    **{f"{name}MLP": ("forward", _mlp) for name in _GATED.split()},
    **{f"{name}Attention": ("forward", encoder) for name in _ENCODERS.split()},
    **{f"{name}Layer": ("feed_forward_chunk", _feed_forward) for name in _ENCODERS.split()},
}
"""By class: the method that is replaced, and what makes its replacement."""
