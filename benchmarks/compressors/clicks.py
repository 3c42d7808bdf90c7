"""Compressed click models on real click logs: methods x budgets, by area under the curve and log loss.

    pip download --no-deps recbole==1.2.1 obp==0.4.1, and unzip both
    python -m benchmarks.compressors.clicks --recbole DIR --obp DIR

DIR is where the package was unpacked. recbole carries MovieLens-100K (a click is a rating of 4 or more), obp a sample
of the Open Bandit log (60 000 impressions, 287 clicks: its standard errors are wide). The model is a DeepFM (Guo et al.
2017): tables of 16 columns, first and second order terms, an MLP of three layers of --width, in float32. The log is
split by time: the latest tenth judges, the tenth before it stops the training, and compression is calibrated on
impressions drawn from what is before. Values that the training part does not hold share a row. A method is its name, or
NAME:ALLOCATION.

Each of --seeds trains a model of its own and draws what calibrates. `change` is the difference of the AUC to the dense
model of the seed on the same impressions: the mean over seeds, its standard error over impressions (DeLong et al. 1988,
of the means over seeds), and its deviation between seeds. --tune trains all that can train after compressing, for so
many passes at most at the best rate by validation, and gives the dense model the same; what it changes is told against
the dense model without it.
Sizes are those of the whole model; --keep is of its bytes. Seconds are CPU time of a fit, which all sizes share, or of
a choice and of building; those of statistics and tuning are in neither. `auto` makes no trials here, for want of a
language model.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.stats import rankdata
from torch import Tensor, nn

from benchmarks.common.click_logs import Part, Row, bandit, encode, movielens
from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.compress.plan import apply, make_plan
from eckart.models.sharing import in_eval_mode, share
from eckart.models.sites import find_sites
from eckart.statistics import statistics_for

DEFAULT = "svd,lord,afm,kfac,magnitude,sparsegpt,rtn,nf4,gptq,auto"
BATCH = 1024


class DeepFM(nn.Module):
    """A logit from first-order terms, products of pairs of fields, and an MLP over all of them."""

    def __init__(self, sizes: dict[str, int], width: int, dimension: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(n, dimension) for name, n in sizes.items()})
        self.first = nn.ModuleDict({name: nn.Embedding(n, 1) for name, n in sizes.items()})
        for table in (*self.tables.values(), *self.first.values()):
            nn.init.normal_(table.weight, std=0.02)
        widths = [dimension * len(sizes), width, width, width]
        layers = [(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(widths)]
        self.mlp = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(width, 1))

    def forward(self, **fields: Tensor) -> SimpleNamespace:
        vectors = torch.stack([_mean(self.tables[name], ids) for name, ids in fields.items()], 1)
        pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(1) / 2
        first = torch.stack([_mean(self.first[name], ids)[:, 0] for name, ids in fields.items()]).sum(0)
        return SimpleNamespace(logits=first + pairs + self.mlp(vectors.flatten(1))[:, 0])


def _mean(table: nn.Module, ids: Tensor) -> Tensor:
    """Rows (n, d) of ids (n,), or their means for ids (n, k), zeros left out."""
    rows: Tensor = table(ids)
    if ids.ndim == 1:
        return rows
    there = (ids > 0)[..., None].to(rows.dtype)
    return (rows * there).sum(1) / there.sum(1).clamp_min(1)


def batches(part: Part, order: Tensor) -> Iterator[Part]:
    for ids in order.split(BATCH):
        yield {name: column[ids] for name, column in part[0].items()}, part[1][ids]


@torch.no_grad()
def logits_of(model: nn.Module, part: Part) -> Tensor:
    with in_eval_mode(model):
        return torch.cat([model(**fields).logits for fields, _ in batches(part, torch.arange(len(part[1])))]).double()


def log_loss(logits: Tensor, clicks: Tensor) -> float:
    return float(F.binary_cross_entropy_with_logits(logits, clicks.double()))


def train(model: nn.Module, parts: list[Part], seed: int, epochs: int, rate: float) -> int:
    """Adam; the weights of least validation loss are kept, and two epochs without a better one end it."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate, weight_decay=1e-5)
    best, at = {k: v.clone() for k, v in model.state_dict().items()}, 0
    least = log_loss(logits_of(model, parts[1]), parts[1][1])
    for epoch in range(1, epochs + 1):
        model.train()
        for fields, clicks in batches(parts[0], torch.randperm(len(parts[0][1]))):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(**fields).logits, clicks).backward()
            optimizer.step()
        loss = log_loss(logits_of(model, parts[1]), parts[1][1])
        if loss < least:
            best, least, at = {k: v.clone() for k, v in model.state_dict().items()}, loss, epoch
        elif epoch >= at + 2:
            break
    model.load_state_dict(best)
    model.eval()
    return at


def placements(scores: NDArray[Any], clicks: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each click the share of the others it is above, and for each other the share of clicks above it."""
    yes, no = scores[clicks], scores[~clicks]
    ranks = rankdata(np.concatenate([yes, no]))
    above = (ranks[: len(yes)] - rankdata(yes)) / len(no)
    return above, 1 - (ranks[len(yes) :] - rankdata(no)) / len(yes)


def delong(scores: Sequence[Tensor], clicks: Tensor, others: Sequence[Tensor] = ()) -> dict[str, float]:
    """Area under the curve or its difference to that of other scores, of several models of the same samples.

    Returns:
        mean: over the models; stderr: its standard error over samples; spread: the deviation between models.
    """
    which = clicks.numpy() > 0.5
    of = [placements(each.numpy(), which) for each in scores]
    minus = [placements(each.numpy(), which) for each in others]
    yes, no = (np.stack([placed[i] for placed in of]) for i in (0, 1))
    if minus:
        yes, no = (a - np.stack([placed[i] for placed in minus]) for i, a in enumerate((yes, no)))
    spread = float(yes.mean(1).std(ddof=1)) if len(of) > 1 else 0.0
    mean_yes, mean_no = yes.mean(0), no.mean(0)
    variance = mean_yes.var(ddof=1) / len(mean_yes) + mean_no.var(ddof=1) / len(mean_no)
    return {"mean": float(yes.mean()), "stderr": float(variance**0.5), "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recbole", type=Path, help="where recbole was unpacked")
    parser.add_argument("--obp", type=Path, help="where obp was unpacked")
    parser.add_argument("--methods", default=DEFAULT)
    parser.add_argument("--keep", default="0.33,0.25,0.2,0.1")
    parser.add_argument("--width", type=int, default=256, help="of the layers of the MLP")
    parser.add_argument("--calibration", type=int, default=16384, help="impressions")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tune", type=int, default=0, help="passes of training after compressing")
    parser.add_argument("--rates", default="1e-4,3e-5", help="of that training, chosen from by validation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder that keeps the trained models")
    add_option(parser)
    options = parser.parse_args()
    logs = [("ml-100k", movielens, options.recbole), ("open bandit", bandit, options.obp)]
    for name, read, root in logs:
        if root is not None:
            run(name, read(root), options)


def dense_model(name: str, sizes: dict[str, int], parts: list[Part], seed: int, options: Any) -> DeepFM:
    torch.manual_seed(seed)
    model = DeepFM(sizes, options.width)
    file = options.models and options.models / f"deepfm-{name.replace(' ', '-')}-{options.width}-{seed}.safetensors"
    if file and file.is_file():
        model.load_state_dict(load_file(file))
        return model.eval()
    clock = time.process_time()
    epoch = train(model, parts, seed, options.epochs, 1e-3)
    print(f"seed {seed} trained to epoch {epoch} in {time.process_time() - clock:.0f} CPU seconds", flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), file)
    return model


def tuned(model: nn.Module, parts: list[Part], seed: int, options: Any) -> nn.Module:
    """A copy whose every parameter has trained on, at the rate of the least validation loss."""
    trials = {}
    for rate in map(float, options.rates.split(",")):
        own = share(model)
        for p in own.parameters():
            p.data = p.data.clone()
        train(own, parts, seed, options.tune, rate)
        trials[log_loss(logits_of(own, parts[1]), parts[1][1])] = own
    return trials[min(trials)]


def run(log: str, rows: list[Row], options: Any) -> None:
    sizes, parts = encode(rows)
    clicks = parts[2][1]
    kept = Rows("compressors.clicks", options.json)
    setting = {"log": log, "width": options.width, "calibration": options.calibration, "seeds": options.seeds}
    if options.tune:
        setting |= {"tuned": options.tune, "rates": options.rates}
    told: defaultdict[tuple[str, float], list[Tensor]] = defaultdict(list)
    found: dict[tuple[str, float], dict[str, Any]] = {}
    reference: list[Tensor] = []
    for seed in range(options.seeds):
        model = dense_model(log, sizes, parts, seed, options)
        reference.append(logits_of(model, parts[2]))
        judged = tuned(model, parts, seed, options) if options.tune else model
        told["dense", 1.0].append(logits_of(judged, parts[2]))
        found["dense", 1.0] = dict(make_plan(model, [], METHODS.find("svd"), {}).totals)
        for (method, keep), small, sizes_and_seconds in compressed(model, parts, seed, options):
            judged = tuned(small, parts, seed, options) if options.tune else small
            told[method, keep].append(logits_of(judged, parts[2]))
            found[method, keep] = sizes_and_seconds
            print(f"seed {seed}: {method} {keep}", flush=True)
    print(
        f"{log}: {', '.join(f'{int(c.sum())} clicks of {len(c)}' for _, c in parts)} to train, validate and judge; "
        f"tables of {', '.join(f'{n} {size}' for n, size in sizes.items())}"
    )
    for (method, keep), scores in told.items():
        area, loss = delong(scores, clicks), sum(log_loss(each, clicks) for each in scores) / len(scores)
        result = {"auc": area["mean"], "stderr": area["stderr"], "spread": area["spread"], "log_loss": loss}
        change = {"mean": 0.0, "stderr": 0.0, "spread": 0.0}
        if method != "dense" or options.tune:
            change = delong(scores, clicks, reference)
            result |= {"change": change["mean"], "change_stderr": change["stderr"], "change_spread": change["spread"]}
        kept.add({**setting, "method": method, "keep": keep}, result | found[method, keep])
        print(
            f"{method:>12} {keep:>5.2f} {found[method, keep]['bytes'] / 1e3:>7.1f} kB, AUC {area['mean']:.4f} +- "
            f"{area['stderr']:.4f}, change {change['mean']:>+8.5f} +- {change['stderr']:.5f} (seeds "
            f"{change['spread']:.5f}), log loss {loss:.4f}",
            flush=True,
        )


def compressed(
    model: DeepFM, parts: list[Part], seed: int, options: Any
) -> Iterator[tuple[tuple[str, float], nn.Module, dict[str, Any]]]:
    """By method and size the compressed model, its sizes and the seconds it took."""
    sites = find_sites(model, embeddings=True)
    wanted = [name for name in options.methods.split(",") if name]
    needs = sorted({n for m in wanted for n in METHODS.find(m.partition(":")[0]).needs}, key=lambda need: need.value)
    picked = torch.randperm(len(parts[0][1]), generator=torch.Generator().manual_seed(seed))
    data = [fields for fields, _ in batches(parts[0], picked[: options.calibration])]
    statistics, _ = statistics_for(model, {s.name: s.module for s in sites}, needs, data, seed=seed)
    for method in wanted:
        card = METHODS.find(method.partition(":")[0])
        allocation = method.partition(":")[2] or card.allocation
        clock = time.process_time()
        plan = make_plan(model, sites, card, statistics)
        plan.fit(errors=allocation != "uniform")
        fitted = time.process_time() - clock
        for keep in map(float, options.keep.split(",")):
            clock = time.process_time()
            try:
                choice = plan.choose(keep, "bytes", allocation)
            except ValueError as reason:
                print(f"{method:>12} {keep:>5.2f} {str(reason)[:100]}", flush=True)
                continue
            small = share(model)
            apply(small, plan, choice)
            seconds = {"fit_seconds": fitted, "cpu_seconds": time.process_time() - clock}
            yield (method, keep), small, {**make_plan(small, [], card, {}).totals, **seconds}


if __name__ == "__main__":
    main()
