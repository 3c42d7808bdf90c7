"""MLPs and attentions are found in models, where they are just that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eckart.models.groups import find_groups
from eckart.models.sites import find_sites
from support.attention import CARD, MODELS
from support.tiny import HIDDEN, tiny_llama


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama-gqa", {"mlp": 2, "query-key": 2, "value-output": 2}),
        ("qwen2", {"mlp": 2, "query-key": 2, "value-output": 2}),
        ("qwen3", {"mlp": 2, "value-output": 2, "matrix": 4}),
        ("gpt2", {"mlp": 2, "matrix": 4}),
        ("opt", {"mlp": 2, "query-key": 2, "value-output": 2}),
        ("bert", {"mlp": 2, "query-key": 2, "value-output": 2, "matrix": 1}),
    ],
)
def test_modules_are_found(name: str, kinds: dict[str, int]) -> None:
    model = MODELS[name]()
    groups = find_groups(model, find_sites(model), list(CARD.together))
    assert {kind: sum(g.kind == kind for g in groups) for kind in {g.kind for g in groups}} == kinds
    rotary = {"llama-gqa": 8, "qwen2": 8}.get(name, 0)
    assert {g.heads.rotary for g in groups if g.kind == "query-key" and g.heads} <= {rotary}


@pytest.mark.parametrize("change", ["norm", "gate", "tied", "interleaved"])
def test_a_module_that_does_more_is_none(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    layer = model.model.layers[0]
    if change == "norm":
        layer.mlp.hidden_norm, lost = nn.LayerNorm(64), {"mlp"}
    elif change == "gate":
        layer.self_attn.gate, lost = nn.Linear(HIDDEN, HIDDEN), {"query-key", "value-output"}
    elif change == "tied":
        model.model.layers[1].mlp.down_proj.weight, lost = layer.mlp.down_proj.weight, {"mlp"}
    else:
        import transformers.models.llama.modeling_llama as llama

        turned = lambda x: torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)  # noqa: E731
        monkeypatch.setattr(llama, "rotate_half", turned)
        lost = {"query-key"}
    groups = find_groups(model, find_sites(model), list(CARD.together))
    found = [group.kind for group in groups if group.name.startswith("model.layers.0")]
    assert {"mlp", "query-key", "value-output"} - set(found) == lost
