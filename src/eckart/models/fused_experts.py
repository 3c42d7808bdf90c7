"""Fused experts of a model taken apart, and put together again."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from eckart.errors import Refused
from eckart.models.experts import Experts, experts, is_fused
from eckart.models.places import set_module


def unfuse(model: nn.Module) -> list[str]:
    """Takes apart all fused experts of a model, in place, without copying; returns their names.

    Nothing is done to a model without them.
    """
    names = [name for name, module in model.named_modules() if name and is_fused(module)]
    unfuse_named(model, names)
    return names


def unfuse_named(model: nn.Module, names: Iterable[str]) -> None:
    """Takes apart the experts of those names that are not yet; Refused where there are none of that name."""
    modules = dict(model.named_modules())
    for name in names:
        if isinstance(modules.get(name), Experts):
            continue
        if name not in modules or not is_fused(modules[name]):
            found = type(modules[name]).__name__ if name in modules else "no module"
            raise Refused(f"{name!r} of {type(model).__name__} should be fused experts and is {found}")
        set_module(model, name, Experts(modules[name]))


def fuse(model: nn.Module) -> None:
    """Puts all experts that were taken apart together again, in place; Refused where they are not dense."""
    for name, module in experts(model).items():
        set_module(model, name, module.fused())
