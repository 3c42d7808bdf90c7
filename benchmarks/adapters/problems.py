"""What the adapters are measured on: a model to start from, what it is to learn, and how well it does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.adapters import peft_arms
from benchmarks.common.minilm import minilm
from benchmarks.common.pictures import ResNet, fashion
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.transformers import load_model
from eckart.texts.corpora import corpus
from eckart.texts.examples import IGNORED, batches, read_examples
from eckart.texts.sequences import sequences


@dataclass
class Task:
    """A model to start from, batches to learn, and how well a model does."""

    model: nn.Module
    learn: list[dict[str, Tensor]]
    validation: Callable[[nn.Module], float]
    test: Callable[[nn.Module], float]
    forgotten: Callable[[nn.Module], float]
    head: str = ""
    unused: str = ""
    better: float = 1.0
    mixed: bool = False
    theirs: Sequence[str] = peft_arms.NAMES

    def precision(self) -> torch.autocast:
        """What training and judging happen in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.mixed)


class Classifier(nn.Module):
    """Mean of the token vectors, and a linear head."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(tokens)
        return (tokens * weights).sum(1) / weights.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(self.embed(input_ids, attention_mask))
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))


@torch.no_grad()
def accuracy(model: nn.Module, judges: list[dict[str, Tensor]]) -> float:
    right = sum(int((model(**b).logits.argmax(-1) == b["labels"]).sum()) for b in judges)
    return right / sum(len(b["labels"]) for b in judges)


def sst2(data: Path, batch: int, steps: int) -> Task:
    encoder, tokenizer = minilm()
    model = Classifier(encoder, int(encoder.config.hidden_size)).eval()

    def read(file: str) -> list[list[str]]:
        return [line.rsplit("\t", 1) for line in (data / file).read_text("utf-8").splitlines() if "\t" in line]

    def rows(lines: list[list[str]]) -> list[dict[str, Tensor]]:
        made = []
        for i in range(0, len(lines), batch):
            part = lines[i : i + batch]
            encoded = tokenizer([t for t, _ in part], padding=True, truncation=True, max_length=64, return_tensors="pt")
            labels = torch.tensor([int(label) for _, label in part])
            made.append({k: encoded[k] for k in ("input_ids", "attention_mask")} | {"labels": labels})
        return made

    lines = read("train.tsv")
    # The file is in the order of its labels.
    lines = [lines[i] for i in torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()]
    learn = rows(lines[512:])
    # Sentences of one length together: judging does not depend on the order.
    held, judges = (rows(sorted(part, key=lambda row: len(row[0]))) for part in (lines[:512], read("dev.tsv")))
    texts = [s for s in corpus("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 200][:256]
    wiki = tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
    wiki = {k: wiki[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        original = model.embed(**wiki)

    @torch.no_grad()
    def drift(m: Any) -> float:
        return float((1 - F.cosine_similarity(m.embed(**wiki), original)).mean())

    return Task(
        model, learn, lambda m: accuracy(m, held), lambda m: accuracy(m, judges), drift, "head", "encoder.pooler"
    )


def gsm8k(data: Path, batch: int, steps: int) -> Task:
    model, tokenizer = load_model("smollm2")

    def rows(file: str, count: int) -> list[dict[str, Tensor]]:
        records = [json.loads(line) for line in (data / file).read_text("utf-8").splitlines()[: 4 * count]]
        pairs = [{"prompt": f"Question: {r['question']}\nAnswer:", "response": f" {r['answer']}"} for r in records]
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "pairs.jsonl"
            written.write_text("\n".join(map(json.dumps, pairs)), "utf-8")
            examples = read_examples(written, tokenizer, 1024)
        short = [example for example in examples if len(example.ids) <= 200]
        return batches(short[:count], batch, tokenizer.eos_token_id)

    @torch.no_grad()
    def loss(m: nn.Module, judges: list[dict[str, Tensor]]) -> float:
        counts = [int((b["labels"][:, 1:] != IGNORED).sum()) for b in judges]
        return sum(n * float(m(**b).loss) for n, b in zip(counts, judges, strict=True)) / sum(counts)

    learn = rows("train.jsonl", batch * steps)
    validation, test = rows("train.jsonl", batch * steps + 16)[-16 // batch :], rows("test.jsonl", 48)
    news = sequences(tokenizer, corpus("news"), 256, 8, 0)
    task = Task(
        model,
        learn,
        lambda m: loss(m, validation),
        lambda m: loss(m, test),
        lambda m: evaluate(m, news).perplexity - before,
        better=-1.0,
        mixed=True,
    )
    with task.precision():
        before = evaluate(model, news).perplexity
    return task


class Pictures(nn.Module):
    """The net of `convolution.py`, called with a batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.net(images).logits
        return SimpleNamespace(logits=logits, loss=None if labels is None else F.cross_entropy(logits, labels))


def turned(data: Path, batch: int, steps: int) -> Task:
    net = ResNet().eval()
    net.load_state_dict(load_file(data / "resnet.safetensors"))

    def rows(images: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
        parts = zip(images.split(batch), labels.split(batch), strict=True)
        return [{"images": x.contiguous(), "labels": y} for x, y in parts]

    (x, y), (upright, classes) = fashion(data, "train"), fashion(data, "t10k")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: batch * steps + 512]
    known, (seen, held) = rows(upright, classes), order.split([batch * steps, 512])
    learn, validation = (rows(x[part].rot90(1, (2, 3)), y[part]) for part in (seen, held))
    test = rows(upright.rot90(1, (2, 3)), classes)
    model = Pictures(net)
    before = accuracy(model, known)
    return Task(
        model,
        learn,
        lambda m: accuracy(m, validation),
        lambda m: accuracy(m, test),
        lambda m: before - accuracy(m, known),
        theirs=peft_arms.CONVOLUTIONAL,
    )
