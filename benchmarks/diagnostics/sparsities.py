"""A model with 50 to 70 % of its weights cut off, shared out among its blocks by the tails of their spectra or evenly.

    python -m benchmarks.diagnostics.sparsities --methods magnitude,wanda,sparsegpt --sparsities 0.5,0.6,0.7

As in AlphaPruning (Lu et al. 2024), every matrix of block b loses a share s (1 + EPSILON u_b) of its weights, u_b from
-1 at the smallest exponent of all blocks to 1 at the largest, s such that all lose the asked share together; to the
weight, not in steps of 5 % as the candidates of `eckart compress`. The arms differ in the exponents, which are means
over the matrices of a block: `alpha` is Hill's of all eigenvalues, as AlphaPruning takes it, `farms` Hill's over
windows of one shape, as FARMS does, `shuffled` the latter handed to blocks drawn at random, and `uniform` has none.

Each seed draws the sequences of calibration, those that judge, and the permutation of `shuffled`. A row of a seed holds
the loss of each sequence; a row of several seeds the perplexity over all of them, and the difference to `uniform` in
nats a token: its standard error over sequences, and its deviation between seeds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.budget.farms import EPSILON
from eckart.compressors.sparsegpt import prune, transfer_and_worth
from eckart.compressors.wanda import scores
from eckart.diagnostics._tails import hill
from eckart.diagnostics.contract import common_window
from eckart.diagnostics.farms import farms
from eckart.jobs.calibration import text_of
from eckart.jobs.evaluate.quality import evaluate
from eckart.linalg.spectrum import spectrum
from eckart.models.sites import Site, find_sites
from eckart.models.transformers import load_model
from eckart.ops.order_statistics import largest
from eckart.statistics import Need, Statistics, statistics_for
from eckart.texts.sequences import sequences

BENCHMARK = "diagnostics.sparsities"
ARMS = ("uniform", "alpha", "farms", "shuffled")


def exponents(sites: Sequence[Site], blocks: Sequence[int], of: Callable[[Tensor], float]) -> Tensor:
    """Mean exponent of each block, (blocks,), float64."""
    found: dict[int, list[float]] = {}
    for site, block in zip(sites, blocks, strict=True):
        found.setdefault(block, []).append(of(site.weight))
    return torch.tensor([sum(found[b]) / len(found[b]) for b in sorted(found)], dtype=torch.float64)


def shares(tails: Tensor | None, blocks: Sequence[int], entries: Sequence[int], sparsity: float) -> list[float]:
    """What each matrix loses, so that all lose `sparsity` of their entries together."""
    if tails is None:
        return [sparsity] * len(entries)
    u = 2 * (tails - tails.min()) / (tails.max() - tails.min()) - 1
    weights = [1 + EPSILON * float(u[b]) for b in blocks]
    s = sparsity * sum(entries) / sum(w * n for w, n in zip(weights, entries, strict=True))
    if max(weights) * s >= 1:
        raise SystemExit(f"a block would lose everything at {sparsity}")
    return [s * w for w in weights]


def cut(method: str, weight: Tensor, statistics: Statistics, lost: float) -> Tensor:
    """The matrix without that share of its weights: of all, of each row, or of each 128 columns."""

    def whole(score: Tensor) -> Tensor:
        return largest(score.reshape(1, -1), round((1 - lost) * score.numel())).view(score.shape)

    if method == "magnitude":
        return weight * whole(weight.abs())
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    if method == "wanda":
        return weight * largest(scores(weight, moment), round((1 - lost) * weight.shape[1]))
    return prune(weight, *transfer_and_worth(moment, torch.float32), whole, 128)[0]


def losses(model: nn.Module, ids: Tensor) -> list[float]:
    return [evaluate(model, row[None]).nll for row in ids]


def summary(each: Mapping[int, list[float]], even: Mapping[int, list[float]]) -> dict[str, Any]:
    """Over all seeds: perplexity, and the paired difference to the even share."""
    nll = torch.tensor([each[seed] for seed in sorted(each)], dtype=torch.float64)
    change = nll - torch.tensor([even[seed] for seed in sorted(each)], dtype=torch.float64)
    spread = float(change.mean(1).std()) if len(change) > 1 else 0.0
    found: dict[str, Any] = {"perplexity": float(nll.mean().exp()), "nll": float(nll.mean())}
    error = float(change.std()) / change.numel() ** 0.5
    return found | {"change": float(change.mean()), "change_stderr": error, "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--methods", default="magnitude,wanda,sparsegpt")
    parser.add_argument("--sparsities", default="0.5,0.6,0.7")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--calibration", default="wikipedia")
    parser.add_argument("--judge", default="news")
    parser.add_argument("--samples", type=int, default=32, help="sequences of calibration")
    parser.add_argument("--eval-samples", type=int, default=8, help="sequences that judge, for each seed")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows(BENCHMARK, options.json)
    model, tokenizer = load_model(options.model)
    sites = find_sites(model)
    names = [re.search(r"\.(\d+)\.", site.name) for site in sites]
    blocks = [int(name[1]) for name in names if name is not None]
    entries, dense = [site.weight.numel() for site in sites], [site.weight.clone() for site in sites]
    side = common_window(site.shape for site in sites)
    assert side is not None
    tails = {
        "alpha": exponents(sites, blocks, lambda w: hill(spectrum(w).positive)),
        "farms": exponents(sites, blocks, lambda w: farms(w, (side, side))),
    }
    for name, values in tails.items():
        print(f"{name}: {float(values.min()):.2f} to {float(values.max()):.2f}", flush=True)
    setting = {
        "model": Path(options.model).name,
        "calibrated on": options.calibration,
        "samples": options.samples,
        "judge": options.judge,
        "judged on sequences": options.eval_samples,
        "length": options.length,
    }
    methods, arms = options.methods.split(","), options.arms.split(",")
    wanted = [(m, float(s), a) for m in methods for s in options.sparsities.split(",") for a in arms]
    each: dict[tuple[str, float, str], dict[int, list[float]]] = {key: {} for key in wanted}
    plain: dict[int, list[float]] = {}
    for seed in range(options.seeds):
        ids = sequences(tokenizer, text_of(options.judge), options.length, options.eval_samples, seed)
        text = sequences(tokenizer, text_of(options.calibration), options.length, options.samples, seed)
        statistics: dict[str, Statistics] = {}
        order = torch.randperm(len(tails["farms"]), generator=torch.Generator().manual_seed(seed))
        given = {"uniform": None, **tails, "shuffled": tails["farms"][order]}
        key = {**setting, "method": "dense", "sparsity": 0.0, "allocation": "uniform", "seed": seed}
        row = rows.get(key) or rows.add(key, {"nll of each": losses(model, ids)})
        plain[seed] = row.found["nll of each"]
        for method, sparsity, arm in wanted:
            key = {**setting, "method": method, "sparsity": sparsity, "allocation": arm, "seed": seed}
            if (row := rows.get(key)) is None:
                if method != "magnitude" and not statistics:
                    modules = {site.name: site.module for site in sites}
                    needs = (Need.INPUT_SECOND_MOMENT,)
                    statistics = statistics_for(model, modules, needs, list(text.split(4)), seed=seed)[0]
                lost = shares(given[arm], blocks, entries, sparsity)
                for site, weight, share in zip(sites, dense, lost, strict=True):
                    site.module.weight.data.copy_(cut(method, weight, statistics.get(site.name, Statistics()), share))
                zeros = sum(int((site.weight == 0).sum()) for site in sites) / sum(entries)
                row = rows.add(key, {"nll of each": losses(model, ids), "zeros": zeros})
                for site, weight in zip(sites, dense, strict=True):
                    site.module.weight.data.copy_(weight)
            each[method, sparsity, arm][seed] = row.found["nll of each"]
            nll = torch.tensor(row.found["nll of each"])
            print(f"seed {seed} {method:>10} {sparsity} {arm:>9}: {float(nll.mean()):.4f}", flush=True)
    what = {**setting, "seeds": options.seeds}
    rows.add({**what, "method": "dense", "sparsity": 0.0, "allocation": "uniform"}, summary(plain, plain))
    for (method, sparsity, arm), found in each.items():
        made = summary(found, each[method, sparsity, "uniform"])
        rows.add({**what, "method": method, "sparsity": sparsity, "allocation": arm}, made)
        print(f"{method:>10} {sparsity} {arm:>9}: {made['perplexity']:.2f}, {made['change']:+.4f} +- "
              f"{made['change_stderr']:.4f} (seeds {made['spread']:.4f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
