"""Tiny models with an adapter, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import eckart
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapter import Adapter
from eckart.texts.examples import Example
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama

RANK = 4


MODELS: dict[str, Callable[[], nn.Module]] = {"llama": tiny_llama, "gpt2": tiny_gpt2}


IN_PLACE = {"welore"}
"""Methods that train what compression left of the matrices."""


def ids(count: int = 4, length: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def adapted(model: nn.Module, method: str, **options: object) -> Adapter:
    if ADAPTERS[method].needs or ADAPTERS[method].task_gradient:
        options.setdefault("calibration", ids(8))
    return eckart.adapt(model, method, rank=RANK, **options)  # type: ignore[arg-type]


def made(method: str, kind: str = "llama") -> nn.Module:
    """A model for a method: a compressed one for a method that adds nothing."""
    model = MODELS[kind]()
    if method in IN_PLACE:
        eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    return model


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(tokens).logits
    return found


def train(model: nn.Module, adapter: Adapter, steps: int = 3, rate: float = 3e-2) -> list[float]:
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=rate, weight_decay=0.0)
    adapter.plan(steps)
    losses, x = [], ids()
    for _ in range(steps):
        loss = model(x, labels=x).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        (loss + adapter.regulariser()).backward()
        optimizer.step()
        adapter.step()
    return [*losses, float(model(x, labels=x).loss.detach())]


def close(a: Tensor, b: Tensor, relative: float = 1e-5) -> bool:
    return float((a - b).norm()) <= relative * float(b.norm())


def unquantized(adapter: Adapter) -> bool:
    return not any(place.replaced for place in adapter.places.values())


def has_matrix(adapter: Adapter) -> bool:
    return all(path.linear for path in adapter.paths.values())


def examples(count: int = 12, seed: int = 0) -> list[Example]:
    return [Example(row, row) for row in ids(count, 16, seed)]
