"""The precision that a model computes in while it is measured, and that of the sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from eckart.machine import DEVICES
from eckart.ops.wide_products import slow_dtypes
from eckart.statistics.batches import device_of

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def mixed(model: nn.Module, asked: bool) -> Iterator[None]:
    """Inside, a model of float32 computes its products in bfloat16 where that is asked for, forwards and back."""
    with ExitStack() as stack:
        if asked:
            stack.enter_context(torch.autocast(device_of(model).type, torch.bfloat16))
        yield


def exact(function: Callable[P, T]) -> Callable[P, T]:
    """The function as it computes in the dtypes of what it is given, also inside `torch.autocast`."""

    @wraps(function)
    def outside(*arguments: P.args, **keywords: P.kwargs) -> T:
        with ExitStack() as stack:
            for kind in filter(torch.is_autocast_enabled, DEVICES):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **keywords)

    return outside


def said_of(mixed_precision: bool) -> list[str]:
    """What a report and a plan say of that option."""
    if not mixed_precision:
        return []
    said = "statistics are of the model in bfloat16 (mixed_precision), their sums in float32 and float64"
    slow = "; this processor has no units for that, and takes longer than in float32"
    return [said + (slow if torch.bfloat16 in slow_dtypes() else "")]
