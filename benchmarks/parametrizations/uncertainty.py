"""Sparse Bayesian training beside sparse and dense training: accuracy and how far probabilities can be trusted.

    python -m benchmarks.parametrizations.uncertainty --fashion DIR [--json FILE]

A perceptron 784-128-128-10 on Fashion-MNIST, 6 passes, AdamW without decay at a rate of 0.003, a cosine; the first two
matrices keep a tenth of their entries, the last is dense. `drawn` is the mean of the probabilities of 20 draws. Loss is
-ln p of the right class, calibration error (ECE) is that of 15 bins of confidence.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import mlp, shuffled, train
from eckart.structures import Gaussian

BATCH, PASSES, RATE, KEEP, DRAWS = 128, 6, 3e-3, 0.1, 20
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("", {}),
    "rigl": ("rigl", {"keep": KEEP}),
    "ssvi": ("ssvi", {"keep": KEEP}),
    "ssvi, places that stay": ("ssvi", {"keep": KEEP, "until": 1e-6}),
}


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor, made: eckart.Reparametrization | None, draws: int) -> Tensor:
    """The mean of `draws` predictions, entries drawn anew; of means alone for 0."""
    parts = [s for s in made.structures.values() if isinstance(s, Gaussian)] if made is not None else []
    total = torch.zeros(len(x), 10)
    for seed in range(max(1, draws)):
        for i, part in enumerate(parts):
            part.noise = torch.Generator().manual_seed(100 * seed + i) if draws else None
        total += torch.cat([model(piece).softmax(-1) for piece in x.split(1000)])
    for part in parts:
        part.noise = None
    return total / max(1, draws)


def scores(p: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, -ln p, and expected calibration error."""
    confidence, guess = p.max(-1)
    hit = (guess == labels).double()
    bins = (confidence * 15).long().clamp(max=14)
    error = sum(
        abs(float((hit[bins == b] - confidence[bins == b].double()).sum())) for b in range(15) if (bins == b).any()
    )
    nll = -p.gather(1, labels[:, None]).clamp_min(1e-12).log().mean()
    return {"accuracy": float(hit.mean()), "loss": float(nll), "ece": error / len(labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (x, y), (others, labels) = fashion(options.fashion, "train"), fashion(options.fashion, "t10k")
    rows = Rows("parametrizations.uncertainty", options.json)
    for name in options.arms:
        method, told = ARMS[name]
        what = {"arm": name, "method": method, "passes": PASSES, "keep": KEEP, "seeds": options.seeds}
        if rows.get({**what, "by": "means"}) is not None:
            continue
        found: dict[str, list[dict[str, float]]] = {}
        for seed in range(options.seeds):
            model = mlp(seed, (128, 128))
            made = eckart.reparametrize(model, method, exclude=["head"], seed=seed, **told) if method else None
            seconds = train(model, shuffled(x, y, BATCH), PASSES * len(x) // BATCH, seed, rate=RATE, made=made)
            for draws in (0, DRAWS) if method == "ssvi" else (0,):
                facts = scores(probabilities(model, others, made, draws), labels)
                found.setdefault("drawn" if draws else "means", []).append({**facts, "cpu_seconds": seconds})
        for how, all_of in reversed(found.items()):
            mean = {key: statistics.mean(each[key] for each in all_of) for key in all_of[0]}
            spread = {f"{key}_spread": statistics.stdev(each[key] for each in all_of) for key in all_of[0]}
            print(name, how, mean, flush=True)
            rows.add(
                {**what, "by": how},
                {**mean, **spread},
            )


if __name__ == "__main__":
    main()
