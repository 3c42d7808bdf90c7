"""The bytes that a forward pass keeps for the backward one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def kept_for_backward(forward: Callable[[], Tensor], own: Iterable[Tensor]) -> int:
    """Bytes that are saved for the backward pass, without those of the model's own tensors."""
    places = {t.untyped_storage().data_ptr() for t in own}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        # A node that saved its own output would keep itself.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(size for place, size in saved.items() if place not in places)
