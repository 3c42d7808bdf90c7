"""Batches for a tiny model, some of its matrices, and how statistics are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from eckart.statistics import Need, Statistics
from support.tiny import VOCABULARY

Batches = Sequence[Tensor | Mapping[str, Tensor]]

ALL = tuple(Need)

INPUTS = (Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.INPUT_ABS_MEAN)

LAYER = "model.layers.0"

SOME = [
    f"{LAYER}.self_attn.q_proj",
    f"{LAYER}.self_attn.k_proj",
    f"{LAYER}.mlp.down_proj",
    "model.layers.1.mlp.up_proj",
]


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def modules_of(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    return {name: model.get_submodule(name) for name in names}


def assert_same(found: Mapping[str, Statistics], expected: Mapping[str, Statistics], rtol: float = 2e-4) -> None:
    assert found.keys() == expected.keys()
    for name, entry in expected.items():
        assert found[name].tokens == entry.tokens, name
        for need in Need:
            a, b = getattr(found[name], need.value), getattr(entry, need.value)
            assert (a is None) == (b is None), (name, need)
            if b is not None:
                assert a.shape == b.shape
                error = float((a.double() - b.double()).norm() / b.double().norm())
                assert error <= rtol, f"{name} {need.value}: relative error {error:.1e}"
