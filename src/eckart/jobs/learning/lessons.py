"""What an adapter learns: examples of a text for models that go on with one, records with what is right for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.jobs.material import answered
from eckart.models.batching import Batcher, padding_of
from eckart.models.tasks import Task, task_of
from eckart.models.transformers import Loaded
from eckart.texts.examples import collate, read_examples
from eckart.texts.records import Record, read_records

VALIDATION = 0.1
"""Share of the examples that is held back where no validation data are given."""


@dataclass(frozen=True)
class Lessons:
    """Examples.

    Attributes:
        learned: to learn.
        validation: to judge by.
        together: makes of some of them a batch with labels, for `model(**batch)`.
    """

    learned: Sequence[Any]
    validation: Sequence[Any]
    together: Callable[[Sequence[Any]], Mapping[str, Tensor]]

    def batches(self, count: int, size: int) -> list[Mapping[str, Tensor]]:
        """The first `count` batches of what is learned, in order."""
        some = self.learned[: count * size]
        return [self.together(some[i : i + size]) for i in range(0, len(some), size)]


def contents(examples: Sequence[Any]) -> list[dict[str, Any]]:
    """All that examples are made of, the bytes of files among it, to be told from others by a fingerprint."""
    return [each.contents() if isinstance(each, Record) else vars(each) for each in examples]


def check_data(source: str) -> None:
    """Raises Refused where there is nothing of a name to learn from."""
    if not Path(source).exists():
        raise Refused(f"there is no file {source}")


def lessons_of(loaded: Loaded, data: str, validation: str, length: int, seed: int) -> Lessons:
    """The examples in files.

    Args:
        loaded: the model and what reads for it.
        data: a file or folder, see `read_examples` for models that go on with text, `read_records` for others.
        validation: another one; "" for a tenth of `data`.
        length: tokens of an example at most.
        seed: of the tenth.

    Raises:
        Refused: too few examples, records that do not say what is right, or a model that learns from neither.
    """
    task = task_of(loaded.model)
    read: Callable[[str], Sequence[Any]]
    together: Callable[[Sequence[Any]], Mapping[str, Tensor]]
    if task.writes:
        read = partial(read_examples, tokenizer=loaded.tokenizer, length=length, seed=seed)
        together = partial(collate, padding=padding_of(loaded.tokenizer))
    else:
        batcher = Batcher(loaded.model, task, loaded.processor, length)
        read = partial(_labelled, task=task)
        together = partial(_batch, batcher=batcher, loaded=loaded)
    examples = read(data)
    if validation:
        return Lessons(examples, read(validation), together)
    if len(examples) < 2:
        raise Refused(f"{data} holds one example, and one is needed to judge by: name --validation too")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    back = max(1, round(VALIDATION * len(examples)))
    learned, held = ([examples[i] for i in sorted(some)] for some in (order[back:], order[:back]))
    return Lessons(learned, held, together)


def _labelled(source: str, task: Task) -> list[Record]:
    """Records that say what is right; Refused where they do not, or the model has no loss that could be learned."""
    name = "label" if task.labels else "response"
    if not (task.labels or task.answers):
        raise Refused(
            f"what is right for a {task.kind} is in no file that eckart reads: train it in Python, with eckart.adapt "
            "and a loss of your own"
        )
    records = read_records(source, task.reads)
    for record in records:
        if getattr(record, name) is None:
            raise Refused(f"{record.where}: there is no {name} to learn")
    return records


def _batch(records: Sequence[Record], batcher: Batcher, loaded: Loaded) -> dict[str, Tensor]:
    batch = batcher.batch(records)
    return answered(batch, loaded) if batcher.task.answers else batch
