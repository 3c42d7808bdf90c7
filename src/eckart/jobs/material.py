"""What a job reads, as what its model can be called with: tokens of a text, or batches of records."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.calibration import MIXTURE, SELF, Body, as_batches, calibration_tokens
from eckart.models.batching import Batcher, padding_of
from eckart.models.own_text import check_writer, own_answers, start_of
from eckart.models.tasks import Task, task_of
from eckart.models.transformers import Loaded
from eckart.progress import Progress, silent
from eckart.statistics.batches import Batch
from eckart.texts.examples import IGNORED
from eckart.texts.records import Record, picked, read_records
from eckart.texts.sequences import fingerprint, overlap, read_text, sequences

ANSWER = 32
"""Tokens of an answer that a model writes where none is given."""


@dataclass(frozen=True)
class Size:
    """How much is read.

    Attributes:
        samples: sequences or records at most.
        length: tokens in each; in those of records at most.
        seed: of which ones.
    """

    samples: int
    length: int
    seed: int


@dataclass(frozen=True)
class Material:
    """What a model is run on.

    Attributes:
        batches: what it is called with.
        info: what a report says of it: tokens (samples, where there are none) and a fingerprint.
        tokens: where it is cut from a text: (sequences, length), int64.
        records: where it is not.
        notes: what was done otherwise than asked.
    """

    batches: Sequence[Batch]
    info: dict[str, Any]
    tokens: Tensor | None = None
    records: Sequence[Record] = ()
    notes: Sequence[str] = ()

    @property
    def mappings(self) -> list[Mapping[str, Tensor]]:
        """The batches, by the names of what the model takes."""
        return [{"input_ids": batch} if isinstance(batch, Tensor) else batch for batch in self.batches]


def calibration_of(
    source: str,
    body: Body,
    loaded: Loaded,
    size: Size,
    *,
    cache: Path | None = None,
    progress: Progress = silent,
    identity: str = "",
) -> Material:
    """What a model is calibrated on.

    Args:
        source: a file, a folder, the name of a text, "self" or "mixture"; see `calibration_tokens` and `read_records`.
        body: `calibration_body(source)`.
        loaded: the model and what reads for it.
        size: how much.
        cache: directory that keeps what the model wrote; None for nowhere.
        progress: told of the phase "write text".
        identity: `model_fingerprint` of the model, if it is known.

    Raises:
        Refused: what the model does not read, or too little of it.
    """
    task = task_of(loaded.model)
    if task.writes:
        text = read_text(body) if isinstance(body, Path) else body
        sizes = size.samples, size.length, size.seed
        tokens = calibration_tokens(source, text, loaded.model, loaded.tokenizer, *sizes, cache, progress, identity)
        batches, info = as_batches(tokens, loaded.tokenizer, *sizes)
        return Material(batches, info, tokens)
    if source == SELF:
        check_writer(loaded.model)
    notes = [f"{task.kind} cannot write: its calibration mixture is of texts alone"] if source == MIXTURE else []
    return _read(source, body, loaded, task, size, loaded.model, notes)


def held_out_of(source: str, body: Body, loaded: Loaded, size: Size, writer: nn.Module | None = None) -> Material:
    """What a model is judged by, as `calibration_of`, with the labels of records that have them.

    Args:
        source, body, loaded, size: as there.
        writer: the model whose answers are read by decoders where no answers are given; None for the model itself.
    """
    task = task_of(loaded.model)
    material = _read(source, body, loaded, task, size, writer or loaded.model, [], labelled=True)
    if not material.batches:
        raise Refused(f"{source} holds nothing to judge by")
    return material


def shared(a: Material, b: Material) -> float:
    """The share of one material that occurs in another one."""
    if a.tokens is not None and b.tokens is not None:
        return overlap(a.tokens, b.tokens)
    known = set(a.records)
    return sum(record in known for record in b.records) / len(b.records) if b.records else 0.0


def _read(
    source: str,
    body: Body,
    loaded: Loaded,
    task: Task,
    size: Size,
    writer: nn.Module,
    notes: Sequence[str],
    labelled: bool = False,
) -> Material:
    if isinstance(body, Path) and not task.writes:
        records = picked(read_records(body, task.reads), size.samples, size.seed)
        batcher = Batcher(loaded.model, task, loaded.processor, size.length)
        # Answers that cannot be masked must not be filled up either.
        single = task.answers and "decoder_attention_mask" not in _taken(loaded.model)
        groups = [[record] for record in records] if single else [records]
        batches = [batch for group in groups for batch in batcher.batches(group)]
        found = Material(batches, _told(batches), records=records, notes=notes)
    else:
        if task.reads != ("text",):
            raise Refused(
                f"{source!r} is a text, and {task.kind} reads {' and '.join(task.reads)}: give {task.wanted}"
                + (", or --eval none" if labelled else " with --calibration")
            )
        text = read_text(body) if isinstance(body, Path) else body
        tokens = sequences(loaded.tokenizer, text, size.length, size.samples, size.seed)
        if task.writes:
            return Material([tokens], {"tokens": tokens.numel(), "fingerprint": fingerprint(tokens)}, tokens)
        batches = [
            {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
            for rows in torch.split(tokens, max(1, 1024 // size.length))
        ]
        found = Material(batches, {"tokens": tokens.numel(), "fingerprint": fingerprint(tokens)}, tokens, notes=notes)
    made = [answered(batch, loaded, writer, size.seed) if task.answers else batch for batch in found.mappings]
    if not (labelled and all("labels" in batch for batch in made)):
        made = [{name: tensor for name, tensor in batch.items() if name != "labels"} for batch in made]
    return replace(found, batches=made)


def answered(
    batch: Mapping[str, Tensor], loaded: Loaded, writer: nn.Module | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """A batch with what the decoder reads: the answers that are known, else what a model answers by itself.

    Args:
        batch: what the encoder reads, with `labels` where answers are known.
        loaded: the model and what reads for it.
        writer: who answers; None for the model itself.
        seed: of the answers.
    """
    taken, found = _taken(loaded.model), dict(batch)
    start = start_of(loaded.model)
    if "labels" in batch:
        known = batch["labels"] != IGNORED
        before = torch.where(known, batch["labels"], padding_of(loaded.tokenizer))
        mask = known.long()
    elif "input_ids" in batch and not _generates(loaded.model):
        before = batch["input_ids"]
        mask = batch["attention_mask"]
    else:
        found["decoder_input_ids"] = own_answers(loaded.model if writer is None else writer, batch, ANSWER, seed)
        return found
    found["decoder_input_ids"] = torch.cat([torch.full_like(before[:, :1], start), before[:, :-1]], 1)
    if "decoder_attention_mask" in taken:
        found["decoder_attention_mask"] = mask
    return found


def _generates(model: nn.Module) -> bool:
    kind: Any = type(model)
    return bool(kind.can_generate())


def _taken(model: nn.Module) -> Collection[str]:
    return inspect.signature(model.forward).parameters


def _told(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Tokens (samples, where there are none) and a fingerprint."""
    digest, count = hashlib.sha256(), 0
    for batch in batches:
        count += int(batch["attention_mask"].sum()) if "input_ids" in batch else len(next(iter(batch.values())))
        for name, tensor in sorted(batch.items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"tokens": count, "fingerprint": digest.hexdigest()[:16]}
