"""What a model does around its blocks, and models whose blocks do not only hand on hidden states."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.blockwise.skeleton import Skeleton
from support.zoo import normal, zoo


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y: Tensor = self.linear(x)
        return y if other is None else y + other


class Model(nn.Module):
    """Three blocks, and what is done between them, by name."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
        self.layers = nn.ModuleList([Block() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x = start = self.first(x)
        before = x
        for layer in self.layers:
            if self.way == "normed":
                x = x / x.norm()
            given = x
            x = layer(x, {"skip": before, "start": start}.get(self.way))
            before = given
        if self.way == "twice":
            x = self.layers[1](x)
        y: Tensor = self.last(x)
        return y


def skeleton(model: nn.Module) -> Skeleton:
    return Skeleton(model.eval(), "layers", normal(4, 6), nullcontext)


@pytest.mark.parametrize("way", ["plain", "start"])
@torch.no_grad()
def test_blocks_one_by_one_are_the_model(way: str) -> None:
    model, x = Model(way).eval(), normal(4, 6)
    parts = skeleton(model)
    hidden = parts.enter(x)
    for block, others in zip(model.layers, parts.calls(x), strict=True):
        hidden = parts.run(block, hidden, others)
    assert torch.equal(parts.leave(x, hidden), model(x))
    assert "forward" not in vars(model.layers[0])


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("normed", r"layers\.1 does not take what layers\.0 returns"),
        ("skip", "are given more of each other's work than hidden states"),
        ("twice", "layers.1 does not take what"),
    ],
)
def test_blocks_that_do_more_than_hand_on_are_refused(way: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        skeleton(Model(way))


@torch.no_grad()
def test_a_model_of_transformers() -> None:
    model, ids = zoo()["Gemma3"]()  # whose blocks see different windows
    parts = Skeleton(model, "model.layers", ids, nullcontext)
    hidden = parts.enter(ids)
    for block, others in zip(model.get_submodule("model.layers").children(), parts.calls(ids), strict=True):
        hidden = parts.run(block, hidden, others)
    assert torch.equal(parts.leave(ids, hidden).logits, model(ids).logits)
    once, again = parts.calls(ids), parts.calls(ids.clone())
    assert once[0][1]["position_embeddings"][0] is again[0][1]["position_embeddings"][0]
