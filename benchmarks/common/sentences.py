"""The sentiment of short sentences by the lower layers of MiniLM: small enough for many runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.adapters.problems import Classifier
from benchmarks.common.minilm import minilm

LENGTH = 32
"""Tokens that are read of a sentence."""
Batch = dict[str, Tensor]


@dataclass
class Sentences:
    """A classifier with a head of zeros; batches to learn in the order of a seed, held-back ones, those to judge by."""

    model: nn.Module
    learn: Callable[[int], list[Batch]]
    held: list[Batch]
    judges: list[Batch]

    def fresh(self) -> Any:
        return copy.deepcopy(self.model)


def sst2(data: Path, layers: int, batch: int) -> Sentences:
    """SST-2 (train.tsv and dev.tsv of Socher et al. 2013: text, tab, label), by the first layers of the encoder."""
    encoder, tokenizer = minilm()
    encoder.encoder.layer = encoder.encoder.layer[:layers]  # type: ignore[index,union-attr]
    model = Classifier(encoder, int(encoder.config.hidden_size)).eval()  # type: ignore[union-attr,arg-type]

    def read(file: str) -> list[list[str]]:
        return [line.rsplit("\t", 1) for line in (data / file).read_text("utf-8").splitlines() if "\t" in line]

    def rows(lines: list[list[str]], size: int) -> list[Batch]:
        made = []
        for i in range(0, len(lines), size):
            texts, labels = zip(*lines[i : i + size], strict=True)
            found = tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
            kept = {k: found[k] for k in ("input_ids", "attention_mask")}
            made.append(kept | {"labels": torch.tensor([int(label) for label in labels])})
        return made

    lines = read("train.tsv")  # in the order of its labels
    lines = [lines[i] for i in torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()]

    def learn(seed: int) -> list[Batch]:
        order = torch.randperm(len(lines) - 512, generator=torch.Generator().manual_seed(seed)).tolist()
        return rows([lines[512 + i] for i in order], batch)

    held, judges = (rows(sorted(part, key=lambda row: len(row[0])), 32) for part in (lines[:512], read("dev.tsv")))
    return Sentences(model, learn, held, judges)


@torch.no_grad()
def right(model: nn.Module, judges: list[Batch]) -> Tensor:
    """Which sentences it gets right, float64."""
    return torch.cat([(model(**batch).logits.argmax(-1) == batch["labels"]).double() for batch in judges])


def rate_at(step: int, steps: int, rate: float) -> float:
    """A tenth of the steps up to the rate, the others down to zero."""
    warm = max(1, steps // 10)
    return rate * ((step + 1) / warm if step < warm else (steps - step) / (steps - warm))


def paired(a: list[Tensor], b: list[Tensor]) -> tuple[float, float]:
    """The mean difference in accuracy and its standard error, over the means of the seeds of each sentence."""
    apart = torch.stack(a).mean(0) - torch.stack(b).mean(0)
    return float(apart.mean()), float(apart.std() / len(apart) ** 0.5)
