"""What is made of the statistics of an input, once for all matrices that have it."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from eckart.metrics import Metric
from eckart.statistics.needs import Statistics

T = TypeVar("T")

KEPT = 3
"""Tensors at a time of which a thread keeps what was made; decompositions of all would outweigh the model."""


class _Made(threading.local):
    """By thread: of the last few tensors, what was made of each, by key."""

    def __init__(self) -> None:
        self.entries: OrderedDict[int, tuple[weakref.ref[Tensor], int, dict[Hashable, Any]]] = OrderedDict()


_MADE = _Made()


def _forget(entries: OrderedDict[int, Any], key: int, _: object) -> None:
    entries.pop(key, None)


def made_of(tensor: Tensor, key: Hashable, make: Callable[[], T]) -> T:
    """What `make()` makes of a tensor, not made again while this thread works on that tensor.

    Args:
        tensor: what it is made of; one that was changed in place is another.
        key: tells what is made of a tensor apart; the same key stands for the same result.
        make: reads nothing but the tensor, and what the key holds. What it returns does not hold the tensor, so that
            both go when nobody else holds it.
    """
    entries = _MADE.entries
    entry, version = entries.get(id(tensor)), 0 if tensor.is_inference() else tensor._version
    if entry is None or entry[0]() is not tensor or entry[1] != version:
        entry = weakref.ref(tensor, partial(_forget, entries, id(tensor))), version, {}
        entries[id(tensor)] = entry
    entries.move_to_end(id(tensor))
    while len(entries) > KEPT:
        entries.popitem(last=False)
    found = entry[2]
    if key not in found:
        found[key] = make()
    result: T = found[key]
    return result


def exact_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a weight, float32 at least."""
    return torch.promote_types(weight.dtype, torch.float32)


def input_metric(weight: Tensor, statistics: Statistics) -> Metric:
    """Metric(right=E[x x^T]) of a weight (out, in); Refused as for `Statistics.input_moment`, and as for `Metric`.

    It holds the statistic itself, in its own dtype: those of many matrices hold one tensor.
    """
    moment = statistics.input_second_moment
    if moment is None or tuple(moment.shape) != 2 * (weight.shape[-1],):
        return Metric(right=statistics.input_moment(weight))  # which refuses

    def check() -> None:
        statistics.input_moment(weight)
        Metric(right=moment)

    made_of(moment, "checked", check)
    return Metric.measured(right=moment)


def input_side(metric: Metric) -> Tensor:
    """E[x x^T] in an `input_metric`."""
    assert metric.right is not None
    return metric.right
