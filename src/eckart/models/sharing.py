"""Tensors that several modules hold, a second module tree over the same ones, and a model that is only looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode inside; afterwards each as it was, and new ones like what they stand in."""
    flags = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            # Parents come first, so that a new module finds the flag of the one around it.
            flags.setdefault(name, flags[name.rpartition(".")[0]])
            module.training = flags[name]


def share(model: nn.Module) -> nn.Module:
    """A copy of the module tree that shares every parameter and buffer: replacing a module in one leaves the other."""
    memo: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in memo:
            # Not by copy.copy, which parametrized modules do not allow.
            twin = memo[id(module)] = object.__new__(type(module))
            twin.__dict__ = dict(module.__dict__)
            twin._parameters = dict(module._parameters)
            twin._buffers = dict(module._buffers)
            twin._modules = {n: None if m is None else copied(m) for n, m in module._modules.items()}
        return memo[id(module)]

    return copied(model)


def sharing(model: nn.Module, module: nn.Module) -> list[str]:
    """The names of other modules that hold the matrix of a layer, as an embedding does that a head is tied to."""
    weight = module._parameters.get("weight")
    others = [(name, other) for name, other in model.named_modules() if weight is not None and other is not module]
    return [name for name, other in others if any(tensor is weight for tensor in other._parameters.values())]


@torch.no_grad()
def untie(model: nn.Module) -> None:
    """Gives every layer a copy of what it shares with another, and has the configuration say that nothing is tied.

    All of them: where words are not tied, transformers ties nothing else either when it loads.
    """
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in seen:
                module._parameters[name] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            seen.add(id(parameter))
    config: Any = getattr(model, "config", None)
    for each in filter(None, (config, config and config.get_text_config())):
        each.tie_word_embeddings = False
