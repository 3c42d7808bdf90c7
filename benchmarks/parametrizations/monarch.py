"""Monarch layers against dense ones and low rank of as many numbers: pictures of clothes, text, and one product.

    python -m benchmarks.parametrizations.monarch pictures --fashion DIR [--json FILE]
    python -m benchmarks.parametrizations.monarch text [--json FILE]
    python -m benchmarks.parametrizations.monarch products [--json FILE]

pictures: a perceptron 784-512-512-10 on Fashion-MNIST, 5 passes over 60,000 pictures. From the start, or from the dense
net that was trained so, projected, and 2 passes more; the dense net gets them too. Accuracy on the 10,000 others.
text: a Llama of 3 layers of width 128 on articles of Wikipedia and 2048 tokens of a byte-level BPE, 200 steps of 1024
tokens, and 60 more after a projection; the loss on held-out articles.
products: processor seconds of one product over that of the dense one, the least of rounds that take turns.
The last layer, or the head, stays dense. The arms have one rate, and the same batches.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.train_moe import split, trained_tokenizer
from benchmarks.parametrizations.training import (
    Batches,
    Loss,
    low_ranks,
    mlp,
    numbers,
    right,
    shuffled,
    train,
)
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.monarch import monarch
from eckart.texts.corpora import corpus

KEEPS = (0.5, 0.2)
LENGTH = 128


def arms(
    start: Callable[[int], nn.Module],
    batches: Batches,
    judge: Callable[[nn.Module], Tensor],
    steps: int,
    more: int,
    seeds: int,
    keeps: tuple[float, ...],
    exclude: tuple[str, ...] = (),
    **told: Any,
) -> dict[tuple[str, str, float], tuple[list[Tensor], list[float], int]]:
    """The scores of all arms by their start, name and share, a tensor and processor seconds a seed, and numbers."""
    found: dict[tuple[str, str, float], tuple[list[Tensor], list[float], int]] = {}

    def run(key: tuple[str, str, float], model: nn.Module, length: int, seed: int) -> nn.Module:
        seconds = train(model, batches, length, seed, **told)
        scores, clocks, _ = found.setdefault(key, ([], [], numbers(model)))
        scores.append(judge(model))
        clocks.append(seconds)
        print(key, seed, f"{float(scores[-1].double().mean()):.4f}, {seconds:.0f} s", flush=True)
        return model

    for seed in range(seeds):
        dense = run(("from the start", "dense", 1.0), start(seed), steps, seed)
        run(("trained on", "dense", 1.0), copy.deepcopy(dense), more, seed + 100)
        for keep in keeps:
            for when, base, projected, length in (
                ("from the start", start(seed), False, steps),
                ("projected", dense, True, more),
            ):
                model = copy.deepcopy(base)
                made = eckart.reparametrize(
                    model, "monarch", keep=keep, projected=projected, exclude=exclude, seed=seed
                )
                sizes = {name: each.cost().parameters for name, each in made.structures.items()}
                run((when, "monarch", keep), model, length, seed if when != "projected" else seed + 100)
                model = copy.deepcopy(base)
                low_ranks(model, exclude, sizes, projected=projected, seed=seed)
                run((when, "low rank", keep), model, length, seed if when != "projected" else seed + 100)
    return found


def write(rows: Rows, what: dict[str, Any], found: Any, seeds: int, unit: str) -> None:
    """A row an arm: mean and spread over seeds, and the paired difference from the dense net of the same steps."""
    for (when, arm, keep), (scores, clocks, count) in found.items():
        beside = found[("from the start" if when == "from the start" else "trained on", "dense", 1.0)][0]
        means = [float(score.double().mean()) for score in scores]
        paired = [float((a.double() - b.double()).mean()) for a, b in zip(scores, beside, strict=True)]
        rows.add(
            {**what, "start": when, "arm": arm, "keep": keep, "seeds": seeds},
            {
                unit: statistics.mean(means),
                "spread": statistics.stdev(means) if seeds > 1 else 0.0,
                "change": statistics.mean(paired),
                "change_stderr": statistics.stdev(paired) / seeds**0.5 if seeds > 1 else 0.0,
                "parameters": count,
                "cpu_seconds": min(clocks),
            },
        )


def pictures(rows: Rows, directory: Path, seeds: int) -> None:
    (x, y), (others, labels) = fashion(directory, "train"), fashion(directory, "t10k")
    batch = 128
    steps = len(x) // batch
    what = {"part": "pictures", "passes": 5, "more": 2, "batch": batch, "rate": 1e-3}
    found = arms(
        mlp, shuffled(x, y, batch), lambda m: right(m, others, labels), 5 * steps, 2 * steps, seeds, KEEPS, ("head",)
    )
    write(rows, what, found, seeds, "accuracy")


class Text(nn.Module):
    """A language model as a function from tokens to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens, use_cache=False).logits
        return logits


def llama(seed: int, vocabulary: int, layers: int = 3, width: int = 128, inner: int = 384) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return Text(LlamaForCausalLM(config))


def text(rows: Rows, seeds: int) -> None:
    training, held_out = split(corpus("wikipedia"))
    tokenizer = trained_tokenizer(training)

    def cut(part: str) -> Tensor:
        tokens = torch.tensor(tokenizer(part)["input_ids"])
        return tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)

    learn, judges = cut(training), cut(held_out)[:192]

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        for tokens, _ in shuffled(learn, learn, 8)(seed):
            yield tokens[:, :-1], tokens[:, 1:]

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    @torch.no_grad()
    def judge(model: nn.Module) -> Tensor:
        return torch.stack([loss(model(t[:, :-1]), t[:, 1:]) for t in judges.split(8)])

    own: Loss = loss
    what = {"part": "text", "steps": 200, "more": 60, "batch": 8, "length": LENGTH, "rate": 3e-3}
    found = arms(lambda seed: llama(seed, len(tokenizer)), batches, judge, 200, 60, seeds, (0.25,), loss=own, rate=3e-3)
    write(rows, what, found, seeds, "loss")


def products(rows: Rows, rounds: int = 12) -> None:
    for n in (576, 1024, 4096):
        W = torch.randn(n, n, generator=torch.Generator().manual_seed(0)) / n**0.5
        for keep in (0.8, 0.5, 0.2):
            structure = monarch(Layer(W, None, torch.Generator().manual_seed(0)), keep=keep)
            for batch in (1, 16, 256) if n < 4096 else (1, 16):
                x = torch.randn(batch, n, generator=torch.Generator().manual_seed(1))
                burst = max(1, int(2e8 / (batch * n * n)))
                for training in (False, True):
                    if training and batch < 16:
                        continue
                    seconds = timed([W.clone().requires_grad_(), structure], x, burst, rounds, training)
                    rows.add(
                        {"part": "a product", "n": n, "keep": keep, "batch": batch, "training": training},
                        {"ratio": seconds[1] / seconds[0], "dense_us": 1e6 * seconds[0]},
                    )


def timed(arms: list[Any], x: Tensor, burst: int, rounds: int, training: bool) -> list[float]:
    """Processor seconds of a product of each arm, the least of some rounds; with its gradients where it trains."""
    least = [float("inf")] * len(arms)
    inputs = x.requires_grad_(training)
    for _ in range(rounds):
        for i, arm in enumerate(arms):
            clock = time.process_time()
            for _ in range(burst):
                with torch.set_grad_enabled(training):
                    y = F.linear(inputs, arm) if isinstance(arm, Tensor) else arm(inputs)
                if training:
                    y.sum().backward()
            least[i] = min(least[i], (time.process_time() - clock) / burst)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["pictures", "text", "products"])
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("parametrizations.monarch", options.json)
    if options.part == "pictures":
        pictures(rows, options.fashion, options.seeds)
    elif options.part == "text":
        text(rows, options.seeds)
    else:
        products(rows)


if __name__ == "__main__":
    main()
