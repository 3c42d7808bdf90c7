"""Modules that are saved as others: what stands around a layer while it is trained has the layer's place in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


class SavedForm(nn.Module):
    """A module whose state dict, and whose entry in a manifest, is that of another that computes the same.

    A model with it in place is saved as any other with structured modules, is loaded as such, and takes the tensors
    back where it is in place again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_write)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]

    def saved(self) -> nn.Module:
        """A dense layer, or what stands in for one, over the tensors of this module."""
        raise NotImplementedError(f"{type(self).__name__} does not define saved")

    def place(self, key: str) -> tuple[str, Callable[[Tensor], Tensor]]:
        """Where this module has what `saved` has as `key`, and what gives a tensor the form that it has there."""
        raise NotImplementedError(f"{type(self).__name__} does not define place")


def as_saved(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model by name, as they are saved."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside) and inside:
            continue
        if isinstance(module, SavedForm):
            inside = (f"{name}." if name else "",)
            module = module.saved()
        yield name, module


def _write(module: SavedForm, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]
    state.update(module.saved().state_dict(prefix=prefix))


def _read(module: SavedForm, state: dict[str, Any], prefix: str, *_: Any) -> None:
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for key in module.saved().state_dict():
        there, form = module.place(key)
        held.pop(there, None)
        if prefix + key in state:
            state[prefix + there] = form(state.pop(prefix + key))
    # What no file of this form has stays as it is.
    state.update({prefix + name: tensor for name, tensor in held.items() if prefix + name not in state})
