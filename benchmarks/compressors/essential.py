"""How many of its smallest weights a language model can lose at once, with one threshold and with one a matrix.

    python -m benchmarks.compressors.essential [--model smollm2] [--texts 24] [--length 128] [--json FILE]

The matrices of the blocks lose 5, 10, ... % of their weights, by one threshold of magnitudes for all of them
(`essential-sparsity`, without its steps) or by one for each (`magnitude`), until the mean loss on a held-out text is
half as large again as the dense one. Rows are the points of the curve, the rise of the loss by the dense one with the
standard error of its mean over the texts, text by text; and the knee of a way: the largest sparsity up to which the
loss stays within 1 %, with the middle 95 % of a bootstrap over the texts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.essential_sparsity import knee
from eckart.jobs.calibration import text_of
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.ops.order_statistics import kth_largest
from eckart.texts.sequences import sequences

BENCHMARK = "compressors.essential"
STEP = 5
ENOUGH = 1.5
"""A loss relative to the dense one behind which nothing is measured."""


@torch.no_grad()
def losses(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy of each sequence, (texts,), float64."""
    found = []
    for row in ids:
        logits = model(row[None]).logits[0, :-1]
        found.append(F.cross_entropy(logits.float(), row[1:]).double())
    return torch.stack(found)


@torch.no_grad()
def cut_off(weights: list[Tensor], dense: list[Tensor], percent: int, one: bool) -> None:
    """Writes into `weights` what is left of `dense` without so many percent, by one threshold or by one a matrix."""

    def threshold(values: Tensor) -> float:
        return float(kth_largest(values.abs().flatten()[None], max(1, values.numel() * (100 - percent) // 100)))

    whole = threshold(torch.cat([w.flatten() for w in dense])) if one else 0.0
    for weight, full in zip(weights, dense, strict=True):
        least = whole if one else threshold(full)
        weight.copy_(full * (full.abs() >= least))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--judge", default="news", help="a text that packages carry, or a file")
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows(BENCHMARK, options.json)
    model, tokenizer = load_model(options.model)
    ids = sequences(tokenizer, text_of(options.judge), options.length, options.texts, options.seed)
    weights = [site.module.weight.data for site in find_sites(model)]
    full, dense = [w.clone() for w in weights], losses(model, ids)
    for method, one in (("essential-sparsity", True), ("magnitude", False)):
        what = {
            "model": Path(options.model).name,
            "judge": options.judge,
            "texts": len(ids),
            "length": options.length,
            "seed": options.seed,
            "method": method,
        }
        sparsities: list[float] = []
        measured: list[Tensor] = []
        for percent in range(STEP, 100, STEP):
            point = {**what, "sparsity": percent / 100}
            if (row := rows.get(point)) is None:
                cut_off(weights, full, percent, one)
                each = losses(model, ids)
                rises = (each - dense) / dense.mean()
                found = {"rise": float(rises.mean()), "rise_stderr": float(rises.std()) / len(rises) ** 0.5}
                row = rows.add(point, found | {"loss of each": each.tolist()})
            sparsities.append(percent / 100)
            measured.append(torch.tensor(row.found["loss of each"], dtype=torch.float64))
            print(f"{method} {percent} %: {row.found['rise']:+.2%} +- {row.found['rise_stderr']:.2%}", flush=True)
            if measured[-1].mean() > ENOUGH * dense.mean():
                break
        at = knee(sparsities, torch.stack(measured), dense, seed=options.seed)
        low, high = at[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        found = {"knee": float(at[0]), "knee_low": low, "knee_high": high, "dense": float(dense.mean())}
        rows.add(what, found)
        print(f"{method}: {found['knee']:.0%} ({found['knee_low']:.0%} to {found['knee_high']:.0%})", flush=True)
    for weight, whole in zip(weights, full, strict=True):
        weight.copy_(whole)


if __name__ == "__main__":
    main()
