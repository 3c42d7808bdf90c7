"""A device that is not there: tensors on it are computed on the CPU, refuse to meet those of it and have no float64.

What runs on it runs on a GPU as far as devices go: nothing is made on the CPU that meets a tensor of the model, and
nothing reads the model's memory as if it were the CPU's. `DEVICE` is one of PyTorch's own that nothing else uses; its
tensors are a subclass, and functions that make a tensor on it are answered by a fallback, in every thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._device import _device_constructors

DEVICE = torch.device("lazy", 0)
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
PICKS = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
"""What takes indices from the CPU on any device."""


class Mixed(RuntimeError):
    """Tensors of this device and of the CPU met."""


class There(Tensor):
    """A tensor on `DEVICE`; `held` are its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{DEVICE} has no {held.dtype}")
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, *args, **(kwargs or {}))

    # What PyTorch does itself on a device and refuses of a subclass.
    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first")
        return self.held.numpy(force=True)

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: There) -> None:
        if (new.shape, new.dtype) != (self.shape, self.dtype):
            raise TypeError(
                f"other numbers than {self.dtype} of shape {tuple(self.shape)} are not put in the same tensor"
            )
        self.held = new.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(tuple(map(_index, index)) if isinstance(index, tuple) else _index(index))

    def new_tensor(self, data: Any, **how: Any) -> Tensor:
        return torch.tensor(data, dtype=how.get("dtype", self.dtype)).to(DEVICE)

    def __repr__(self, **_: Any) -> str:
        return f"There({self.held!r})"


def _index(index: Any) -> Any:
    """A list as an index is moved to the device."""
    return torch.tensor(index).to(DEVICE) if isinstance(index, list) else index


def computed(func: Any, *args: Any, **kwargs: Any) -> Any:
    """What an operation gives, on the device where its tensors are or where it was told to be."""
    found: list[Tensor] = []
    _mapped(lambda x: found.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
    there = [x for x in found if isinstance(x, There)]
    device = kwargs.get("device")
    if there and func not in (*MOVES, *PICKS) and any(x.ndim and not isinstance(x, There) for x in found):
        raise Mixed(f"{func}: expected all tensors to be on the same device, but found {DEVICE} and cpu")
    stays = bool(there) if device is None else _is_there(device)
    kwargs = {
        k: torch.device("cpu") if k == "device" and v is not None and _is_there(v) else v for k, v in kwargs.items()
    }
    result = func(*_mapped(_held, args), **_mapped(_held, kwargs))
    known = {id(x.held): x for x in there}  # operations in place give back what they were given

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known.get(id(x)) or There(x) if stays and id(x) not in known else known.get(id(x), x)

    return args[0] if func is aten.copy_.default else _mapped(wrapped, result)


def _mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """What is in tuples, lists and dictionaries, as PyTorch's own trees but several times as fast."""
    if type(x) in (tuple, list):
        return type(x)([_mapped(function, each) for each in x])
    return {key: _mapped(function, each) for key, each in x.items()} if type(x) is dict else function(x)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, There) else x


_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(computed, "Lazy")
MAKERS = ("tensor", "as_tensor", "arange", "linspace", "eye", "randperm")
"""Functions that ask for more of a device than a fallback is asked, or for a tensor that they resize."""


def _anywhere(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, device: Any = None, **how: Any) -> Tensor:
        there = device is not None and _is_there(device)
        found = make(*args, device=None if there else device, **how)
        return found.to(DEVICE) if there else found

    return made


_autocast_here = torch.autocast


def _autocast(kind: str, *args: Any, **how: Any) -> Any:
    return nullcontext() if kind == DEVICE.type else _autocast_here(kind, *args, **how)


def _is_there(device: Any) -> bool:
    return torch.device(device).type == DEVICE.type


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Inside, `DEVICE` can be used."""
    _device_constructors()  # which remembers what `torch.device("meta")` is to act on
    with pytest.MonkeyPatch.context() as patch:
        for name in MAKERS:
            patch.setattr(torch, name, _anywhere(getattr(torch, name)))
        patch.setattr(torch, "inference_mode", _no_grad)  # whose tensors no subclass can wrap
        patch.setattr(torch, "autocast", _autocast)  # which has to be told of a device
        for ask, there in (("is_autocast_enabled", False), ("get_autocast_dtype", torch.float32)):
            patch.setattr(torch, ask, _asked(getattr(torch, ask), there))
        yield DEVICE


def _asked(ask: Callable[..., Any], there: Any) -> Callable[..., Any]:
    return lambda *kinds: there if kinds == (DEVICE.type,) else ask(*kinds)


def _no_grad(mode: bool = True) -> Any:
    return torch.no_grad() if mode else nullcontext()


def moved(value: Any) -> Any:
    """Tensors in a structure of any kind, or a module, on the device."""
    if isinstance(value, torch.nn.Module):
        return value.to(DEVICE)
    return _mapped(lambda x: x.to(DEVICE) if isinstance(x, Tensor) else x, value)
