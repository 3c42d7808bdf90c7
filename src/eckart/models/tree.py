"""A second module tree over the same tensors, and recomputing activations instead of holding them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def share(model: nn.Module) -> nn.Module:
    """A copy of the module tree that shares every parameter and buffer: replacing a module in one leaves the other."""
    memo: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in memo:
            twin = memo[id(module)] = copy.copy(module)
            twin._parameters = dict(module._parameters)
            twin._buffers = dict(module._buffers)
            twin._modules = {n: None if m is None else copied(m) for n, m in module._modules.items()}
        return memo[id(module)]

    return copied(model)


@contextmanager
def checkpointed(model: nn.Module, wanted: bool) -> Iterator[bool]:
    """Recomputes block activations in the backward pass, where the model can; yields whether it does."""
    handle: Any = model
    if not (wanted and getattr(model, "supports_gradient_checkpointing", False)):
        yield False
        return
    handle.gradient_checkpointing_enable({"use_reentrant": False})
    # transformers recomputes only in training mode; what would act differently there stays in eval mode.
    model.train()
    for module in model.modules():
        if "dropout" in type(module).__name__.lower():
            module.eval()
    try:
        yield True
    finally:
        handle.gradient_checkpointing_disable()
        model.eval()
