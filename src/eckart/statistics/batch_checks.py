"""What can be said of batches before a model is called with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.statistics.batches import Batch, described, numbered, samples_in

IDS = ("input_ids", "decoder_input_ids")
"""Entries that are token ids in every model of transformers."""


def check_batches(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Raises Refused that names the first batch with which no model like this can be called, and why.

    A batch has samples and no NaN; token ids are whole numbers (samples, tokens) in the vocabulary. Anything else is
    for the model to say, see `call`.
    """
    for position, batch in enumerate(batches):
        with numbered(position):
            check_batch(model, batch)


def check_batch(model: nn.Module, batch: Batch) -> None:
    """`check_batches` for one of them."""
    entries = {_first(model): batch} if isinstance(batch, Tensor) else dict(batch)
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        raise Refused("it holds no tensor")
    if isinstance(batch, Tensor) and not batch.ndim:
        raise Refused(f"it is one number, {batch.item()}: a model is called with samples in the first dimension")
    of_text = hasattr(model, "get_input_embeddings")
    for name in IDS if of_text else ():
        if name in tensors:
            _check_ids(name, tensors[name])
    if not samples_in(batch) or not all(value.numel() for name, value in tensors.items() if name in IDS):
        raise Refused(f"it holds no samples ({described(batch)})")
    if of_text and "input_ids" in tensors:
        _check_vocabulary(model, tensors["input_ids"])
    for name, value in tensors.items():
        # Of labels, NaN may say that there is none.
        if value.is_floating_point() and not name.endswith("labels") and (count := int(value.isnan().sum())):
            raise Refused(f"{name or 'it'} holds NaN: {count} of {value.numel()} numbers")


def _first(model: nn.Module) -> str:
    """What a model calls the first thing that it is called with; "" where it does not say."""
    named = (p.name for p in inspect.signature(model.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD)
    return next(named, "")


def _check_ids(name: str, ids: Tensor) -> None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise Refused(f"{name} is {str(ids.dtype).removeprefix('torch.')}: token ids are int64, {name}.long()")
    if ids.ndim < 2:
        raise Refused(f"{name} has the shape {tuple(ids.shape)}: token ids are (sequences, length)")


def _check_vocabulary(model: nn.Module, ids: Tensor) -> None:
    """Refuses ids that no row of the embedding is of; of models with other parts too, those stand for what is no text.

    On a GPU, such an id ends the process.
    """
    if getattr(getattr(model, "config", None), "sub_configs", None):
        return
    rows = _rows(model)
    least, most = int(ids.min()), int(ids.max())
    if rows is not None and not 0 <= least <= most < rows:
        raise Refused(
            f"input_ids holds token {least if least < 0 else most}, and the vocabulary is 0 to {rows - 1}: is it "
            "from another tokenizer?"
        )


def _rows(model: nn.Module) -> int | None:
    look_up: Callable[[], Any] = model.get_input_embeddings  # type: ignore[assignment]
    try:
        rows = getattr(look_up(), "num_embeddings", None)
    except (NotImplementedError, AttributeError):  # it has none, or none in one place
        return None
    return rows if isinstance(rows, int) else None
