"""Adapters that clients train and a server averages, with and without noise for privacy.

    pip install --no-deps opacus opt_einsum
    python -m benchmarks.adapters.federated --data DIR [--json FILE]

Clothes turned by a right angle (Fashion-MNIST, --data), by a perceptron 784-256-256 that knows them upright; its head
does not train. Six clients have 500 images each, of classes in shares that are drawn from a Dirichlet distribution
(0.5), and take 5 local steps in each of 15 rounds; what travels and what the server does is `eckart.Federation`. A
local step is of SGD on a Poisson sample of a tenth of the images, or of Adam, begun anew each round. In private
settings gradients of single images are cut to norm 1 and noise is added, so that all steps together are (epsilon,
1e-5)-private to a client's image by the RDP accountant of Opacus. Rank 8.

Arms: `lora` trains A and B, and the server averages both; `ffa` has an A that does not train, drawn as LoRA's or with
orthonormal rows; `fedsvd` factors B A anew in each round, beginning from either. Of the rates at
which no seed diverges the one is taken that does best on 2,000 held-back images with the first seed. Differences are
seed by seed, to `ffa, orthonormal`.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import eckart
from benchmarks.adapters.problems import accuracy
from benchmarks.adapters.streams import WIDTH, Heads, Perceptron, batches, begun, pictures
from benchmarks.common.rows import Rows, add_option

CLIENTS, IMAGES, ROUNDS, LOCAL, SHARE, RANK, DELTA, CLIP = 6, 500, 15, 5, 0.1, 8, 1e-5, 1.0
SETTINGS: dict[str, tuple[float | None, bool, tuple[float, ...]]] = {
    "SGD": (None, False, (0.3, 1.0, 3.0)),
    "SGD, epsilon 6": (6.0, False, (1.0, 3.0, 10.0)),
    "Adam": (None, True, (3e-3, 1e-2, 3e-2)),
}
"""Epsilon, whether it is Adam, and the rates."""
ARMS = ("lora", "ffa, drawn", "ffa, orthonormal", "fedsvd, drawn", "fedsvd, orthonormal")
BESIDE = "ffa, orthonormal"
OTHER = {("SGD", "lora"): 0.1, ("SGD", "ffa, drawn"): 3.0, ("SGD, epsilon 6", "ffa, drawn"): 3.0}
"""What the rates are multiplied by: training both factors without clipping diverges early, and rows of norm 3^-1/2 ask
for three times the rate of orthonormal ones."""


def noise_of(epsilon: float | None) -> float:
    """The noise on a sum of gradients of norm 1, per coordinate."""
    if epsilon is None:
        return 0.0
    from opacus.accountants.utils import get_noise_multiplier

    found: float = get_noise_multiplier(
        target_epsilon=epsilon, target_delta=DELTA, sample_rate=SHARE, steps=ROUNDS * LOCAL, accountant="rdp"
    )
    return found


def shares(labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    """The images of each client."""
    classes = [
        part[torch.randperm(len(part), generator=generator)]
        for part in ((labels == c).nonzero()[:, 0] for c in range(10))
    ]
    taken = [0] * 10
    found = []
    for _ in range(CLIENTS):
        # Gamma(1/2) variables are squares of normal ones.
        drawn = torch.randn(10, generator=generator).square()
        kinds = torch.multinomial(drawn / drawn.sum(), IMAGES, replacement=True, generator=generator)
        mine = []
        for kind in kinds.tolist():
            mine.append(classes[kind][taken[kind]])
            taken[kind] += 1
        found.append(torch.stack(mine))
    return found


def federation(model: nn.Module, arm: str, seed: int) -> eckart.Federation:
    """An adapter beside a copy of the model, as the arm begins with it."""
    name, _, first = arm.partition(", ")
    adapter = eckart.adapt(copy.deepcopy(model), "lora" if name == "lora" else "fedsvd", rank=RANK, seed=seed)
    if first == "drawn":
        drawn = eckart.adapt(copy.deepcopy(model), "lora", rank=RANK, seed=seed)
        with torch.no_grad():
            for where, path in adapter.paths.items():
                list(path.parameters())[1].copy_(list(drawn.paths[where].parameters())[1])
    return eckart.Federation(adapter)


def local(
    worker: eckart.Federation,
    x: Tensor,
    y: Tensor,
    rate: float,
    noise: float | None,
    adam: bool,
    generator: torch.Generator,
) -> None:
    """The steps of one client; no noise at all (None) is without clipping too."""
    model: Any = worker.adapter.model
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(own.values(), lr=rate) if adam else torch.optim.SGD(own.values(), lr=rate)
    task = torch.zeros(1, dtype=torch.long)

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        inputs = {"task": task, "images": image[None]}
        return F.cross_entropy(functional_call(model, values, (), inputs).logits, label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    for _ in range(LOCAL):
        seen = torch.rand(len(x), generator=generator) < SHARE
        optimizer.zero_grad()
        if noise is None:
            if seen.any():
                F.cross_entropy(model(task=task, images=x[seen]).logits, y[seen]).backward()
        else:
            gradients = each({n: p.detach() for n, p in own.items()}, x[seen], y[seen])
            norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()
            factors = (CLIP / norms.clamp_min(1e-12)).clamp_max(1.0)
            for n, p in own.items():
                drawn = noise * CLIP * torch.randn(p.shape, generator=generator)
                p.grad = (torch.einsum("i,i...->...", factors, gradients[n]) + drawn) / (SHARE * len(x))
        optimizer.step()


def run(
    model: nn.Module, arm: str, seed: int, rate: float, noise: float | None, adam: bool, data: tuple[Tensor, Tensor]
) -> nn.Module | None:
    """The server's model after the last round; None where the training diverged."""
    generator = torch.Generator().manual_seed(seed)
    x, y = data
    clients = shares(y, generator)
    server, worker = (federation(model, arm, seed) for _ in range(2))
    finite = True
    for _ in range(ROUNDS):
        sent = []
        for mine in clients:
            worker.load(server.arrays())
            local(worker, x[mine], y[mine], rate, noise, adam, generator)
            sent.append(worker.trained())
            finite = finite and all(np.isfinite(array).all() for array in sent[-1])
        if not finite:
            return None
        if arm.startswith("ffa"):
            server.load([part for pair in zip(mean(sent), server.arrays()[1::2], strict=True) for part in pair])
        else:
            server.average(sent)
    return server.adapter.model


def mean(sent: list[list[Any]]) -> list[Any]:
    return [sum(arrays) / len(arrays) for arrays in zip(*sent, strict=True)]


def known(directory: Path) -> tuple[nn.Module, tuple[Tensor, Tensor], list[Any], list[Any]]:
    """The net that knows clothes upright; and turned ones to learn, held back and to judge by."""
    torch.manual_seed(0)
    (images, labels), (upright, classes) = pictures(directory, 0)
    model = Heads(Perceptron(), WIDTH, [10])
    nn.init.normal_(model.heads[0].weight, std=0.05)  # type: ignore[arg-type]
    begun(model, batches(images[:30000], labels[:30000], 0, 128), 3)

    def turned(x: Tensor) -> Tensor:
        return x.rot90(1, (2, 3)).contiguous()

    held = batches(turned(images[-2000:]), labels[-2000:], 0, 500)
    return model, (turned(images[30000:45000]), labels[30000:45000]), held, batches(turned(upright), classes, 0, 500)


def score(model: nn.Module | None, judges: list[Any]) -> float:
    """The accuracy, 0 of a training that diverged."""
    return 0.0 if model is None else accuracy(model, judges)


def scored(
    rates: tuple[float, ...],
    act: Callable[[int, float], nn.Module | None],
    held: list[Any],
    judges: list[Any],
    seeds: int,
) -> tuple[float, list[float]]:
    """The rate that does best on held-back data, and the accuracy of each seed with it."""
    swept = {rate: act(0, rate) for rate in rates}
    for rate in sorted(swept, key=lambda each: -score(swept[each], held)):
        made = [swept[rate], *(act(seed, rate) for seed in range(1, seeds))]
        if all(model is not None for model in made):
            break
    return rate, [score(model, judges) for model in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("adapters.federated", options.json)
    model, data, held, judges = known(options.data)
    untrained = accuracy(model, judges)
    print(f"untrained {untrained:.4f}", flush=True)
    for setting in options.settings:
        epsilon, adam, rates = SETTINGS[setting]
        noise = noise_of(epsilon)
        beside: list[float] | None = None
        for arm in sorted(ARMS, key=lambda each: each != BESIDE):
            what = {"setting": setting, "arm": arm, "method": "fedsvd", "rank": RANK, "seeds": options.seeds}
            row = rows.get(what)
            if row is None:
                rate, found = scored(
                    tuple(OTHER.get((setting, arm), 1.0) * each for each in rates),
                    lambda seed, rate: run(model, arm, seed, rate, noise if epsilon else None, adam, data),  # noqa: B023
                    held,
                    judges,
                    options.seeds,
                )
                summary: dict[str, Any] = {
                    "accuracy": statistics.fmean(found),
                    "spread": statistics.stdev(found),
                    "rate": rate,
                    "noise": noise,
                    "untrained": untrained,
                    "each": found,
                }
                if beside is not None:
                    apart = [a - b for a, b in zip(found, beside, strict=True)]
                    summary["change"] = statistics.fmean(apart)
                    summary["change_stderr"] = statistics.stdev(apart) / len(apart) ** 0.5
                row = rows.add(what, summary)
            if arm == BESIDE:
                beside = list(row.found["each"])
            print(setting, arm, {k: v for k, v in row.found.items() if k != "each"}, flush=True)


if __name__ == "__main__":
    main()
