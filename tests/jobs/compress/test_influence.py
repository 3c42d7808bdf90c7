"""The influence of blocks, and the allocation by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from eckart.jobs.compress.influence import block_influence
from support.attention import ids
from support.tiny import tiny_llama


def test_influence_is_the_cosine_of_hidden_states() -> None:
    model = tiny_llama()
    states = model(ids(), output_hidden_states=True).hidden_states
    names = ["model.layers.0", "model.layers.1"]
    found = block_influence(model, names, list(ids().split(4)))
    x, y = (s.detach().double() for s in states[:2])
    cosine = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    assert found[names[0]] == pytest.approx(1 - float(cosine.mean()), rel=1e-6)
    assert set(found) == set(names)


def test_padding_does_not_count() -> None:
    model = tiny_llama()
    padded = torch.nn.functional.pad(ids(), (0, 5))
    mask = torch.nn.functional.pad(torch.ones_like(ids()), (0, 5))
    names = ["model.layers.0", "model.layers.1"]
    found = block_influence(model, names, [{"input_ids": padded, "attention_mask": mask}])
    assert found == pytest.approx(block_influence(model, names, [ids()]), rel=1e-5)


def test_blocks_of_less_influence_lose_more() -> None:
    model = tiny_llama()
    result = eckart.compress(
        model, "modegpt", keep=0.7, of="linear-parameters", allocation="influence", calibration=ids()
    )
    influence = result.plan.influence
    first, second = (influence[f"model.layers.{i}"] for i in range(2))
    kept = [result.choice[f"model.layers.{i}.mlp.gate_proj"] or 64 for i in range(2)]
    assert (kept[0] > kept[1]) == (first > second)


def test_a_model_without_blocks_is_refused() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(Refused, match="no block that hands on what it was given"):
        eckart.compress(
            net, "svd", keep=0.5, of="linear-parameters", allocation="influence", calibration=[torch.ones(2, 8)]
        )


def test_a_method_that_takes_the_same_from_all_blocks_has_no_use_for_it() -> None:
    with pytest.raises(Refused, match="modegpt-narrow the same from all"):
        eckart.compress(tiny_llama(), "modegpt-narrow", keep=0.7, allocation="influence", calibration=ids())
