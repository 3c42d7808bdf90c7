"""What a model is run on at once: some samples (sequences, images, rows of a table) in the first dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused

Batch = Tensor | Mapping[str, Tensor]


def call(model: nn.Module, batch: Batch) -> Any:
    """The model's output on a batch; a language model is not to keep its keys and values."""
    extra = {"use_cache": False} if hasattr(model, "generation_config") else {}
    return model(batch, **extra) if isinstance(batch, Tensor) else model(**batch, **extra)


def samples_in(batch: Batch) -> int:
    """How many samples a batch holds: the first extent of its token ids, else that of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    first = batch.get("input_ids")
    tensors = [first] if first is not None else [t for t in batch.values() if isinstance(t, Tensor) and t.ndim]
    return len(tensors[0]) if tensors else 1


def picked(batch: Batch, samples: Sequence[int]) -> Batch:
    """Some samples of a batch; what all samples share, one in the first dimension, stays.

    Raises:
        Refused: an entry has another first extent, so that nobody knows which of it belongs to a sample.
    """
    count = samples_in(batch)
    index = list(samples)
    if isinstance(batch, Tensor):
        return batch[index]
    if count > 1:
        check_positions(batch)
    return {name: value if count == 1 else _picked(name, value, index, count) for name, value in batch.items()}


def check_positions(batch: Mapping[str, Tensor]) -> None:
    """Raises Refused for positions in several dimensions, whose samples are in another place than those of the rest."""
    positions = batch.get("position_ids")
    if isinstance(positions, Tensor) and positions.ndim > 2:
        raise Refused(
            f"'position_ids' of shape {tuple(positions.shape)} cannot be told apart by sample and token: give one "
            "sample a batch, without padding"
        )


def _picked(name: str, value: Any, index: list[int], count: int) -> Any:
    if isinstance(value, list | tuple) and len(value) == count:
        return type(value)([value[i] for i in index])
    if not isinstance(value, Tensor) or not value.ndim or len(value) == 1:
        return value
    if len(value) != count:
        raise Refused(
            f"{name!r} of shape {tuple(value.shape)} does not say which of it belongs to which of the {count} samples "
            "of its batch: give one sample a batch"
        )
    return value[torch.tensor(index)]


def one_by_one(batch: Batch) -> list[Batch]:
    """Each sample of a batch by itself; Refused as for `picked`."""
    count = samples_in(batch)
    return [batch] if count == 1 else [picked(batch, [i]) for i in range(count)]
