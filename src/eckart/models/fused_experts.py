"""Packed matrices of a model taken apart, and put together again: fused experts, and torch's attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from eckart.errors import Refused
from eckart.models.attention import Attention, is_attention
from eckart.models.expert_layouts import layout_of
from eckart.models.experts import Experts, ParallelExperts, is_parallel
from eckart.models.places import set_module
from eckart.models.weights import Readable

Apart = Experts | ParallelExperts | Attention


def is_packed(module: nn.Module) -> bool:
    """Whether a module holds several matrices in a tensor, or reads them past the layers that hold them."""
    return is_attention(module) or is_parallel(module) or layout_of(module) is not None


def unfuse(model: nn.Module) -> list[str]:
    """Takes apart all packed matrices of a model, in place, without copying; returns the names of their modules.

    Nothing is done to a model without them.
    """
    names = [name for name, module in model.named_modules() if name and is_packed(module)]
    unfuse_named(model, names)
    return names


def unfuse_named(model: nn.Module, names: Iterable[str]) -> None:
    """Takes apart the modules of those names that are not yet; Refused where there are none of that name."""
    modules = dict(model.named_modules())
    visited = getattr(getattr(model, "config", None), "num_experts_per_tok", None)
    for name in names:
        module = modules.get(name)
        if isinstance(module, Apart):
            continue
        if module is None or not is_packed(module):
            found = "no module" if module is None else type(module).__name__
            raise Refused(f"{name!r} of {type(model).__name__} should hold packed matrices and is {found}")
        if isinstance(module, nn.MultiheadAttention):
            set_module(model, name, Attention(module))
        else:
            set_module(model, name, (ParallelExperts if is_parallel(module) else Experts)(module, visited))


def taken_apart(model: nn.Module) -> dict[str, Apart]:
    """What stands for packed matrices in a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Apart)}


@contextmanager
def apart(model: nn.Module) -> Iterator[list[str]]:
    """Packed matrices are taken apart inside, and stay so where one of them was replaced; their names are given.

    The others, and after an error all of them, are as they were.
    """
    packed = {name: module for name, module in model.named_modules() if name and is_packed(module)}
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
        if isinstance(module, Apart) and not any(isinstance(m, Readable) for m in module.modules()):
            set_module(model, name, module.packed())


def fuse(model: nn.Module) -> None:
    """Puts all that was taken apart together again, in place; Refused where it is not dense."""
    for name, module in taken_apart(model).items():
        set_module(model, name, module.packed())
