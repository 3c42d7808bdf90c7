"""What a model is run on at once: some samples (sequences, images, rows of a table) in the first dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused, of_memory
from eckart.ops.wide_products import WideProducts

Batch = Tensor | Mapping[str, Tensor]


def call(model: nn.Module, batch: Batch) -> Any:
    """The model's output on a batch, which is moved to it; a language model is not to keep its keys and values.

    Raises:
        Refused: the model cannot be called with the batch; what it says is quoted.
    """
    extra = {"use_cache": False} if hasattr(model, "generation_config") else {}
    batch = beside(model, batch)
    with calling(model, batch):
        return model(batch, **extra) if isinstance(batch, Tensor) else model(**batch, **extra)


def device_of(model: nn.Module) -> torch.device:
    """Where the first tensor of a model is that has numbers; the CPU where there is none."""
    tensors = chain(model.parameters(), model.buffers())
    return next((t.device for t in tensors if not t.is_meta), torch.device("cpu"))


def beside(model: nn.Module, batch: Batch) -> Batch:
    """A batch on the device of the first tensor of a model."""
    device = device_of(model)
    if isinstance(batch, Tensor):
        return batch.to(device)
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


@contextmanager
def calling(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Refuses a batch that a model fails on, in the model's words; what a hook of eckart raises passes as it is.

    Products of 16 bits are computed as `WideProducts` says.
    """
    try:
        with WideProducts():
            yield
    except Exception as error:
        # The first frame is this one, and the second whoever calls the model.
        below = error.__traceback__ and error.__traceback__.tb_next and error.__traceback__.tb_next.tb_next
        if type(error).__module__.startswith("eckart.") or of_memory(error) or _passes_here(below):
            raise
        raise Refused(
            f"{type(model).__name__} cannot be called with {described(batch)}: {type(error).__name__}: {error}"
        ) from error


def _passes_here(traceback: TracebackType | None) -> bool:
    """Whether an error comes from a hook that measures, so that it is none of the model."""
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
            return True
        traceback = traceback.tb_next
    return False


def described(batch: Batch) -> str:
    """What is in a batch: dtypes and shapes, and the range of whole numbers.

    >>> described({"input_ids": torch.arange(6).reshape(2, 3)})
    "'input_ids' int64 (2, 3) of 0 to 5"
    """
    entries = {"": batch} if isinstance(batch, Tensor) else batch
    return ", ".join(f"{name!r} {_kind(value)}" if name else _kind(value) for name, value in entries.items())


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    whole = value.numel() and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    return f"{kind} of {int(value.min())} to {int(value.max())}" if whole else kind


@contextmanager
def numbered(position: int) -> Iterator[None]:
    """Refusals inside say which calibration batch they are about."""
    try:
        yield
    except Refused as error:
        raise Refused(f"calibration batch {position}: {error}") from (error.__cause__ or error)


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
