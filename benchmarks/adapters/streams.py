"""Streams of tasks that come one after the other: what is learned, how well, and what was known before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.adapters.problems import Task, accuracy
from benchmarks.common.minilm import minilm
from benchmarks.common.pictures import fashion
from eckart.texts.corpora import corpus

WIDTH = 256
LAYERS = 3
WORDS = 24
LENGTH = 40
"""Layers of the encoder, words of a passage, and tokens that are read of it."""


@dataclass
class Stream:
    """Tasks of one model.

    Attributes:
        tasks: in their order; of each `forgotten` is what the model lost of what it knew before the first.
        include: the matrices that are learned.
        of_heads: whether each task has a head of its own, which all methods train whole.
        known: batches of what the model knew before, none of which it is judged by.
    """

    tasks: list[Task]
    include: list[str]
    of_heads: bool
    known: list[dict[str, Tensor]]

    @property
    def model(self) -> nn.Module:
        return self.tasks[0].model


class Heads(nn.Module):
    """A trunk that makes a vector of each example, and heads of which a batch names one."""

    def __init__(self, trunk: nn.Module, width: int, classes: list[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in classes)
        for p in self.heads.parameters():
            nn.init.zeros_(p)

    def forward(self, task: Tensor, labels: Tensor | None = None, **inputs: Tensor) -> Any:
        logits = self.heads[int(task[0])](self.trunk(**inputs))
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))


class Perceptron(nn.Module):
    """784 pixels, two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(784, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images.flatten(1)).relu()).relu()


class Encoder(nn.Module):
    """The mean of the token vectors."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(tokens)
        mean: Tensor = (tokens * weights).sum(1) / weights.sum(1)
        return mean


def unlabelled(rows: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The first batches, to calibrate on."""
    return [{name: tensor for name, tensor in batch.items() if name != "labels"} for batch in rows[:16]]


def batches(images: Tensor, labels: Tensor, task: int, batch: int) -> list[dict[str, Tensor]]:
    parts = zip(images.split(batch), labels.split(batch), strict=True)
    return [{"images": x.contiguous(), "labels": y, "task": torch.full((len(y),), task)} for x, y in parts]


def begun(model: nn.Module, learn: list[dict[str, Tensor]], passes: int) -> None:
    """Trains all of a model, which is what it knows before the stream."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(passes):
        for batch in learn:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    model.eval()


def lesson(
    model: nn.Module, learn: list[Any], held: list[Any], judges: list[Any], forgotten: Callable[[nn.Module], float]
) -> Task:
    return Task(model, learn, lambda m: accuracy(m, held), lambda m: accuracy(m, judges), forgotten)


def lost(model: nn.Module, known: list[dict[str, Tensor]]) -> Callable[[nn.Module], float]:
    """How much accuracy a model has lost since now."""
    before = accuracy(model, known)
    return lambda m: before - accuracy(m, known)


def pictures(directory: Path, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The images to learn, in an order, and those to judge by."""
    x, y = fashion(directory, "train")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return (x[order], y[order]), fashion(directory, "t10k")


def split(directory: Path, batch: int, steps: int) -> Stream:
    """Ten kinds of clothes, two a task and a head for each; before that handwritten digits."""
    torch.manual_seed(0)
    model = Heads(Perceptron(), WIDTH, [2, 2, 2, 2, 2, 10])
    digits = load_digits()
    x = F.interpolate(torch.tensor(digits.images).float()[:, None] / 8 - 1, size=(28, 28), mode="bilinear")
    y = torch.tensor(digits.target).long()
    nn.init.normal_(model.heads[5].weight, std=0.05)  # type: ignore[arg-type]
    known = batches(x[:1200], y[:1200], 5, 32)
    begun(model, known, 12)
    forgotten = lost(model, batches(x[1200:], y[1200:], 5, 256))
    (images, labels), (upright, classes) = pictures(directory, 0)
    tasks = []
    for task in range(5):
        mine, judges = (each // 2 == task for each in (labels, classes))
        seen, kinds = images[mine], labels[mine] % 2
        count = batch * steps
        tasks.append(
            lesson(
                model,
                batches(seen[:count], kinds[:count], task, batch),
                batches(seen[count : count + 1000], kinds[count : count + 1000], task, 500),
                batches(upright[judges], classes[judges] % 2, task, 500),
                forgotten,
            )
        )
    return Stream(tasks, ["re:^trunk"], True, known)


def moved(directory: Path, batch: int, steps: int) -> Stream:
    """Clothes in five ways that are not upright, and one head; before that they were upright."""
    torch.manual_seed(0)
    (images, labels), (upright, classes) = pictures(directory, 0)
    model = Heads(Perceptron(), WIDTH, [10])
    nn.init.normal_(model.heads[0].weight, std=0.05)  # type: ignore[arg-type]
    known = batches(images, labels, 0, 128)
    begun(model, known, 3)
    forgotten = lost(model, batches(upright, classes, 0, 500))
    orders = [torch.randperm(784, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    def permuted(x: Tensor, order: Tensor) -> Tensor:
        return x.flatten(1)[:, order].view_as(x)

    ways: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.rot90(1, (2, 3)),
        lambda x: permuted(x, orders[0]),
        lambda x: x.rot90(2, (2, 3)),
        lambda x: permuted(x, orders[1]),
        lambda x: x.rot90(3, (2, 3)),
    ]
    count, tasks = batch * steps, []
    for number, way in enumerate(ways):
        mine = slice(number * 2000, number * 2000 + count)
        tasks.append(
            lesson(
                model,
                batches(way(images[mine]), labels[mine], 0, batch),
                batches(way(images[-2000:]), labels[-2000:], 0, 500),
                batches(way(upright), classes, 0, 500),
                forgotten,
            )
        )
    return Stream(tasks, [], False, known[:16])


def passages(directory: Path, genre: str) -> list[list[str]]:
    """Of each text of a genre of Brown's corpus, its passages."""
    found = []
    for file in sorted(directory.glob(f"c{genre}[0-9][0-9]")):
        words = [word.rsplit("/", 1)[0] for word in file.read_text("utf-8").split()]
        found.append([" ".join(words[i : i + WORDS]) for i in range(0, len(words) - WORDS, WORDS)])
    return found


def brown(directory: Path, batch: int, steps: int) -> Stream:
    """Passages of 15 genres, three a task and a head for each, texts to judge by being others than those to learn."""
    encoder, tokenizer = minilm()
    encoder.encoder.layer = encoder.encoder.layer[:LAYERS]  # type: ignore[index,union-attr]
    model = Heads(Encoder(encoder), int(encoder.config.hidden_size), [3] * 5).eval()

    def rows(examples: list[tuple[str, int]], task: int) -> list[dict[str, Tensor]]:
        made = []
        for i in range(0, len(examples), batch):
            texts, labels = zip(*examples[i : i + batch], strict=True)
            encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
            inputs = {k: encoded[k] for k in ("input_ids", "attention_mask")}
            made.append(inputs | {"labels": torch.tensor(labels), "task": torch.full((len(labels),), task)})
        return made

    sentences = [s for s in corpus("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 200][:256]
    known = rows([(sentence, 0) for sentence in sentences[128:]], 0)
    wiki = tokenizer(sentences[:128], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    wiki = {k: wiki[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        original = model.trunk(**wiki)

    @torch.no_grad()
    def drift(m: Any) -> float:
        return float((1 - F.cosine_similarity(m.trunk(**wiki), original)).mean())

    genres, tasks = "abcdefghjklmnpr", []
    for task in range(5):
        parts: list[list[tuple[str, int]]] = [[], [], []]
        generator = torch.Generator().manual_seed(task)

        def mixed(things: list[Any], generator: torch.Generator = generator) -> list[Any]:
            return [things[i] for i in torch.randperm(len(things), generator=generator).tolist()]

        for label, genre in enumerate(genres[task::5]):
            texts = mixed(passages(directory, genre))
            half, quarter = len(texts) // 2, (len(texts) + 3) // 4
            for part, mine in zip(parts, (texts[:half], texts[half:-quarter], texts[-quarter:]), strict=True):
                part += mixed([(passage, label) for text in mine for passage in text])[:150]
        learn, held, judges = (mixed(part)[:n] for part, n in zip(parts, (batch * steps, 90, 240), strict=True))
        held, judges = (sorted(part, key=lambda each: len(each[0])) for part in (held, judges))
        tasks.append(lesson(model, rows(learn, task), rows(held, task), rows(judges, task), drift))
    return Stream(tasks, ["re:^trunk(?!.*pooler)"], True, known)


STREAMS: dict[str, tuple[Callable[[Path, int, int], Stream], int, int, list[float], list[float]]] = {
    "split": (split, 64, 150, [1e-3, 3e-3, 1e-2], [1e-4, 3e-4, 1e-3, 3e-3]),
    "moved": (moved, 64, 150, [3e-4, 1e-3, 3e-3, 1e-2], [1e-4, 3e-4, 1e-3, 3e-3]),
    "brown": (brown, 8, 40, [1e-3, 3e-3], [1e-4, 3e-4]),
}
"""How a stream is made, the examples of a batch, the steps of a task, the rates of thin paths and those of all else."""
