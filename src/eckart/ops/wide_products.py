"""Products of 16-bit floats on processors that have no units for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MANY = 64
"""Vectors from which on a product costs more than casting its matrix."""


@cache
def slow_dtypes() -> frozenset[torch.dtype]:
    """The 16-bit dtypes whose products PyTorch computes several times slower than those of float32 on this CPU.

    Processors of other kinds than x86 are taken at PyTorch's word.
    """
    if not getattr(torch.cpu, "_is_avx2_supported", lambda: False)():
        return frozenset()
    units = {
        torch.bfloat16: ("_is_avx512_bf16_supported", "_is_amx_tile_supported"),
        torch.float16: ("_is_amx_fp16_supported",),
    }
    slow = {dtype for dtype, names in units.items() if not any(getattr(torch.cpu, n, lambda: True)() for n in names)}
    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        slow -= {torch.float16}
    return frozenset(slow)


class WideProducts(TorchFunctionMode):
    """Inside, `F.linear` of many vectors on a CPU computes in float32 and rounds once, where that is faster.

    A product with units of 16 bits sums up in float32 and rounds once too, so results agree to the order of the sums.
    What is kept for the gradient stays in 16 bits.

    Args:
        slow: the dtypes that are computed so; None for those without units on this CPU.

    >>> x, w = torch.ones(64, 4, dtype=torch.bfloat16), torch.ones(2, 4, dtype=torch.bfloat16)
    >>> with WideProducts():
    ...     F.linear(x, w).dtype
    torch.bfloat16
    """

    def __init__(self, slow: frozenset[torch.dtype] | None = None) -> None:
        super().__init__()
        self.slow = slow_dtypes() if slow is None else slow

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and not kwargs and self.slow and self._applies(*args):
            return _Wide.apply(*args, *[None] * (3 - len(args)))  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))

    def _applies(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
        return (
            x.dtype in self.slow
            and weight.dtype == x.dtype
            and (bias is None or bias.dtype == x.dtype)
            and x.device.type == weight.device.type == "cpu"
            and weight.ndim == 2
            and x.numel() >= MANY * x.shape[-1]
            and not torch.is_autocast_enabled("cpu")
        )


class _Wide(torch.autograd.Function):
    """x @ weight.T + bias in float32, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wide = gradient.float()
        rows = wide.flatten(0, -2)
        needed = ctx.needs_input_grad
        return (
            (wide @ weight.float()).to(x.dtype) if needed[0] else None,
            (rows.T @ x.flatten(0, -2).float()).to(x.dtype) if needed[1] else None,
            rows.sum(0).to(x.dtype) if needed[2] else None,
        )
