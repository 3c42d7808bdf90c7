"""Articles of Wikipedia for small Llamas to learn, and others to pick and to judge them by."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.train_moe import split, trained_tokenizer
from benchmarks.parametrizations.monarch import LENGTH
from benchmarks.parametrizations.training import shuffled
from eckart.texts.corpora import corpus

JUDGES, PICKS = slice(96), slice(96, 160)
"""Texts of articles that no one learns."""


@dataclass(frozen=True)
class Articles:
    """What is learned.

    Attributes:
        words: of the tokenizer.
        batches: seed -> tokens and the next ones.
        loss: of logits and tokens, the mean.
        pick, judge: the loss of a model on two sets of texts that it does not learn.
    """

    words: int
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    pick: Callable[[nn.Module], float]
    judge: Callable[[nn.Module], float]


def articles(texts: int) -> Articles:
    """So many texts of `LENGTH` tokens in a batch."""
    training, others = split(corpus("wikipedia"))
    tokenizer = trained_tokenizer(training)

    def cut(part: str) -> Tensor:
        tokens = torch.tensor(tokenizer(part)["input_ids"])
        return tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)

    learn, held = cut(training), cut(others)

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        for tokens, _ in shuffled(learn, learn, texts)(seed):
            yield tokens[:, :-1], tokens[:, 1:]

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    @torch.no_grad()
    def score(model: nn.Module, which: slice) -> float:
        return statistics.mean(float(loss(model(t[:, :-1]), t[:, 1:])) for t in held[which].split(8))

    return Articles(
        len(tokenizer), batches, loss, lambda model: score(model, PICKS), lambda model: score(model, JUDGES)
    )
