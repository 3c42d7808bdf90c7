"""`weight` of modules that do not hold their matrix as one tensor, for code that reads it past their `forward`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused

_ATTRIBUTES = frozenset(
    """shape dtype device layout ndim requires_grad is_leaf grad grad_fn names itemsize nbytes is_meta is_cpu is_cuda
    is_mps is_xpu is_sparse is_sparse_csr is_nested is_quantized is_mkldnn""".split()  # noqa: SIM905
)
_METHODS = frozenset(
    """size dim ndimension numel nelement stride element_size is_floating_point is_complex is_signed is_contiguous
    get_device is_inference __len__ __hash__""".split()  # noqa: SIM905
)
"""What a tensor says of itself without its numbers."""


_WRITES = frozenset("__set__ __setitem__ __iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__".split())  # noqa: SIM905


class Readable(nn.Module):
    """A module whose matrix is read as `weight` although it is no tensor: by torch's fused kernels, by models that ask
    for its dtype.

    Attributes:
        where: its name in its model, for messages.
    """

    where = ""
    _told = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the weight of the layer that it stands for."""
        raise NotImplementedError

    @property
    def stored_as(self) -> tuple[torch.dtype, torch.device]:
        """The dtype and the device of the matrix."""
        raise NotImplementedError

    @property
    def asks(self) -> bool:
        """Whether gradients are asked of any part of it."""
        return any(p.requires_grad for p in self.parameters())

    def stored(self) -> Tensor:
        """The matrix in that shape, through which gradients flow."""
        raise NotImplementedError

    def multiplied(self, x: Tensor) -> Tensor | None:
        """`x @ weight.T` without making the matrix, or None where that is no cheaper."""
        return None

    @property
    def weight(self) -> Tensor:
        """The matrix as a tensor: what it is like costs nothing, its numbers are made each time that they are used."""
        return Weight.of(self)

    def dense_weight(self) -> Tensor:
        """The matrix, with a warning the first time: it costs what the structure was to save."""
        if not self._told:
            self._told = True
            warnings.warn(
                f"{self.where or type(self).__name__}: the model multiplies by its weight instead of calling it; the "
                f"dense matrix {self.stored_shape} is made each time, which costs what it was to save",
                stacklevel=2,
            )
        return self.stored()


class Weight(Tensor):
    """The weight of a `Readable`, made when someone computes with it.

    As a tensor that overrides torch's functions it keeps torch's fused kernels, which would go past `forward`, from
    being taken (`torch.overrides.has_torch_function`).
    """

    source: Readable

    @classmethod
    def of(cls, source: Readable) -> Weight:
        dtype, device = source.stored_as
        make: Any = Tensor._make_wrapper_subclass
        made: Weight = make(cls, source.stored_shape, dtype=dtype, device=device, requires_grad=source.asks)
        made.source = source
        made._is_hf_initialized = True  # type: ignore[attr-defined]
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Weight of {self.source.where or type(self.source).__name__}, {self.source.stored_shape}"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        of = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in _METHODS or (name == "__get__" and of in _ATTRIBUTES):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        written = kwargs.get("out")
        if name in _WRITES or (name.endswith("_") and not name.endswith("__")):
            written = next(iter([*args, *kwargs.values()]), None)
        if isinstance(written, cls):
            raise Refused(
                f"{written!r} cannot be written to by {of or name}: the matrix is a structure; change its parts, or "
                "make the model dense first with `eckart export --to dense`"
            )
        if func is F.linear and len(args) > 1 and isinstance(args[1], cls) and not isinstance(args[0], cls):
            product = args[1].source.multiplied(args[0])
            if product is not None:
                bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
                return product if bias is None else product + bias
        return func(*_made(args), **_made(kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise Refused(f"{func} met the weight of a structure below torch's functions, where gradients would be lost")


def _made(value: Any) -> Any:
    """A value with dense tensors in the place of weights."""
    if isinstance(value, Weight):
        return value.source.dense_weight()
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        made = [_made(each) for each in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    if isinstance(value, dict):
        return {key: _made(each) for key, each in value.items()}
    return value
