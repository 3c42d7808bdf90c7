"""Tiles: the same outputs, masks and caches included, and nothing large on the way."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import eckart
from support.tiny import CONTEXT, HIDDEN, VOCABULARY, tiny_gpt2, tiny_llama

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def gemma3() -> PreTrainedModel:
    layers = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**SIZES, num_key_value_heads=1, head_dim=16, sliding_window=8, layer_types=layers)
    )


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16))


def bert() -> PreTrainedModel:
    return BertModel(BertConfig(**SIZES))


MODELS = {"llama": tiny_llama, "gemma3": gemma3, "qwen3": qwen3, "bert": bert}


@functools.cache
@torch.inference_mode(False)
@torch.enable_grad()
def small(name: str, method: str = "kfac") -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        for norm in (m for n, m in model.named_modules() if n.endswith(("q_norm", "k_norm"))):
            nn.init.normal_(norm.weight, 1)
    if method == "dense":
        return model
    # The forward pass of an encoder has no logits to draw labels from, which kfac needs.
    eckart.compress(
        model, "svd" if name == "bert" else method, keep=0.6, of="linear-parameters", calibration=ids(8, 32)
    )
    return model


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


def first(output: Any) -> Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).norm() <= 1e-5 * theirs.norm())


@torch.inference_mode()
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("tokens", [1, 7, 50])
@pytest.mark.parametrize("name", MODELS)
def test_same_outputs(name: str, tokens: int, padding: str) -> None:
    model, x, mask = small(name), ids(3, 21), torch.ones(3, 21, dtype=torch.long)
    if padding != "none":
        mask[1, slice(0, 9) if padding == "left" else slice(12, None)] = 0
    inputs = {"input_ids": x, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
    expected = first(model(**inputs))
    with eckart.tiled(model, tokens) as names:
        found = first(model(**inputs))
    assert len(names) == 4
    assert close(found[mask.bool()], expected[mask.bool()])
    assert torch.equal(first(model(**inputs)), expected)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3"])
def test_cache(name: str) -> None:
    """A prompt, a second piece of it, and decoding give what one pass over all of it gives."""
    model, x = small(name), ids(2, 40)
    expected = first(model(x, use_cache=False))
    with eckart.tiled(model, 8):
        start = model(x[:, :21], use_cache=True)
        middle = model(x[:, 21:38], past_key_values=start.past_key_values, use_cache=True)
        end = model(x[:, 38:39], past_key_values=middle.past_key_values, use_cache=True)
        last = model(x[:, 39:], past_key_values=end.past_key_values, use_cache=True)
    assert close(torch.cat([first(o) for o in (start, middle, end, last)], 1), expected)
    with eckart.tiled(model, 1):
        # More sequences than a tile has tokens, one token each.
        start = model(x[:, :39], use_cache=True)
        assert close(first(model(x[:, 39:], past_key_values=start.past_key_values))[:, -1], expected[:, -1])


class Largest(TorchDispatchMode):
    """The most entries that a tensor made inside has, views aside."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in known:
                self.entries = max(self.entries, t.numel())
        return out


@torch.inference_mode()
@pytest.mark.parametrize("method", ["dense", "kfac", "svd"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_nothing_large(name: str, method: str) -> None:
    """The largest tensor is the hidden state; without tiles it is the hidden layer of an MLP or wider."""
    model = small(name, method)
    body = model if name == "bert" else model.model
    for batch, length in ((1, 256), (16, 16)):
        x = ids(batch, length)
        with Largest() as whole:
            body(x)
        with eckart.tiled(model, 16), Largest() as parts:
            body(x)
        assert parts.entries == 256 * HIDDEN
        assert whole.entries >= 2 * parts.entries


def test_state_and_errors() -> None:
    model = tiny_llama()
    names = list(model.state_dict())
    with eckart.tiled(model, 4):
        assert list(model.state_dict()) == names
        with (
            pytest.raises(ValueError, match=r"layers\.0\.self_attn\.forward was replaced already"),
            eckart.tiled(model),
        ):
            pass
    with pytest.raises(RuntimeError, match="inside"), eckart.tiled(model, 4):
        raise RuntimeError("inside")
    assert not any("forward" in vars(m) for m in model.modules())
    for tokens in (0, 1.5, True):
        with pytest.raises(ValueError, match="tokens"), eckart.tiled(model, tokens):  # type: ignore[arg-type]
            pass
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no attention or MLP"), eckart.tiled(tiny_gpt2()):
        pass
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match=r"'eager' attention; call model\.set_attn"), eckart.tiled(model):
        pass
    with pytest.raises(ValueError, match=r"model\.eval\(\)"), eckart.tiled(model.train()):
        pass
