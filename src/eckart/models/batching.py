"""Records as batches that a model can be called with, through its own tokenizer and processors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.tasks import Task
from eckart.texts.examples import IGNORED
from eckart.texts.media import read_image, read_sound
from eckart.texts.records import Record

SAMPLES = 8
"""In a batch at most."""


@dataclass(frozen=True)
class Batcher:
    """Makes batches.

    Attributes:
        model: of transformers.
        task: what it is for.
        processor: what came with it; None for nothing.
        length: tokens of a text at most.
    """

    model: nn.Module
    task: Task
    processor: Any
    length: int

    def batches(self, records: Sequence[Record]) -> list[dict[str, Tensor]]:
        """All records in order, with `labels` where every record has them.

        Raises:
            Refused: no processor for what is to be read, files that cannot be read, or labels the model has not.
        """
        if not records:
            return []
        return [self.batch(records[i : i + SAMPLES]) for i in range(0, len(records), SAMPLES)]

    def batch(self, records: Sequence[Record]) -> dict[str, Tensor]:
        """One batch of some records."""
        made: dict[str, Tensor] = {}
        for kind in self.task.reads:
            made |= {"text": self._texts, "image": self._images, "sound": self._sounds}[kind](records)
        if self.task.labels and all(record.label is not None for record in records):
            made["labels"] = torch.tensor([self._label(record) for record in records])
        if self.task.answers and all(record.response is not None for record in records):
            made["labels"] = self._answers(records)
        return made

    def _texts(self, records: Sequence[Record]) -> dict[str, Tensor]:
        tokenizer = self._part("tokenizer", "eos_token_id", "tokenizer")
        rows = [tokenizer(record.text, truncation=True, max_length=self._most(tokenizer)) for record in records]
        for record, row in zip(records, rows, strict=True):
            if not row["input_ids"]:
                raise Refused(f"{record.where}: the text has no tokens")
        fills = {"input_ids": padding_of(tokenizer)}
        taken = inspect.signature(self.model.forward).parameters
        made = {
            name: padded([row[name] for row in rows], fills.get(name, 0))
            for name in rows[0]
            if name in taken and isinstance(rows[0][name], list)
        }
        made["attention_mask"] = padded([[1] * len(row["input_ids"]) for row in rows], 0)
        self._check_vocabulary(made["input_ids"])
        return made

    def _images(self, records: Sequence[Record]) -> dict[str, Tensor]:
        processor = self._part("image_processor", "image_mean", "processor of images")
        images = [read_image(record.image) for record in records if record.image is not None]
        return self._taken(processor(images=images, return_tensors="pt"))

    def _sounds(self, records: Sequence[Record]) -> dict[str, Tensor]:
        extractor = self._part("feature_extractor", "sampling_rate", "extractor of features of sound")
        rate = extractor.sampling_rate
        sounds = [read_sound(record.sound, rate) for record in records if record.sound is not None]
        padding = inspect.signature(extractor.__call__).parameters["padding"].default or True
        return self._taken(extractor(sounds, sampling_rate=rate, padding=padding, return_tensors="pt"))

    def _answers(self, records: Sequence[Record]) -> Tensor:
        tokenizer = self._part("tokenizer", "eos_token_id", "tokenizer")
        rows = [
            tokenizer(text_target=record.response, truncation=True, max_length=self._most(tokenizer))["input_ids"]
            for record in records
        ]
        end = tokenizer.eos_token_id
        # Most tokenizers end a text by themselves; an answer that does not end would never be learned to.
        rows = [row if end is None or row[-1:] == [end] else [*row[: self.length - 1], end] for row in rows]
        labels = padded(rows, IGNORED)
        self._check_vocabulary(labels.clamp_min(0))
        return labels

    def _label(self, record: Record) -> int:
        config: Any = self.model.config
        names = {str(name): int(number) for name, number in (config.label2id or {}).items()}
        label = names.get(str(record.label), record.label)
        label = int(label) if isinstance(label, str) and label.isdecimal() else label
        if not (isinstance(label, int) and 0 <= label < config.num_labels):
            raise Refused(
                f"{record.where}: the model has no class {record.label!r}; its {config.num_labels} are "
                + ", ".join(map(repr, list(names)[:8]))
            )
        return label

    def _part(self, name: str, mark: str, what: str) -> Any:
        """A part of the processor, or the processor itself where it is of that kind."""
        part = getattr(self.processor, name, None)
        found = self.processor if part is None else part
        if found is None or not hasattr(found, mark):
            raise Refused(
                f"{self.task.kind} came without a {what}: write the one that belongs to it into its directory with "
                "save_pretrained(DIR)"
            )
        return found

    def _most(self, tokenizer: Any) -> int:
        """Tokens of a text at most: as asked for, within the context."""
        config: Any = self.model.config
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
        return min(self.length, int(tokenizer.model_max_length), context if isinstance(context, int) else self.length)

    def _check_vocabulary(self, ids: Tensor) -> None:
        config: Any = self.model.config
        size = config.get_text_config().vocab_size
        if int(ids.max()) >= size:
            raise Refused(f"the tokenizer gives token {int(ids.max())} but the model's vocabulary is {size}")

    def _taken(self, found: Any) -> dict[str, Tensor]:
        """What the model takes of what a processor made, in its own dtype."""
        taken = inspect.signature(self.model.forward).parameters
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        tensors = {name: value for name, value in found.items() if name in taken and isinstance(value, Tensor)}
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def padding_of(tokenizer: Any) -> int:
    """The token that fills up short texts; where a tokenizer has none, any is as good behind a mask."""
    tokens = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in tokens if token is not None)


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of numbers as one tensor (rows, longest), filled up at the right."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)
