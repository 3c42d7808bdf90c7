"""Fused experts of a model taken apart, and put together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from eckart.errors import Refused
from eckart.models.experts import Experts, experts, is_fused
from eckart.models.places import set_module
from eckart.models.weights import Readable


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


@contextmanager
def apart(model: nn.Module) -> Iterator[list[str]]:
    """Packed matrices are taken apart inside, and stay so where one of them was replaced; their names are given.

    The others, and after an error all of them, are as they were.
    """
    packed = {name: module for name, module in model.named_modules() if name and is_fused(module)}
    names = unfuse(model)
    kept = set()
    try:
        yield names
        kept = {n for n in names if any(isinstance(m, Readable) for m in model.get_submodule(n).modules())}
        names[:] = [name for name in names if name in kept]
    finally:
        for name, module in packed.items():
            if name not in kept:
                set_module(model, name, module)


def pack(model: nn.Module, names: Iterable[str]) -> None:
    """Puts together again what was taken apart under some names, where nothing stands in for a part of it."""
    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, Experts) and not any(isinstance(m, Readable) for m in module.modules()):
            set_module(model, name, module.fused())


def fuse(model: nn.Module) -> None:
    """Puts all experts that were taken apart together again, in place; Refused where they are not dense."""
    for name, module in experts(model).items():
        set_module(model, name, module.fused())
