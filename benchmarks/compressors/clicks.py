"""Compressed click models on real click logs: methods x budgets, by area under the curve and log loss.

    pip download --no-deps recbole==1.2.1 obp==0.4.1, and unzip both
    python -m benchmarks.compressors.clicks --recbole DIR --obp DIR

DIR is where the package was unpacked. recbole carries MovieLens-100K (a click is a rating of 4 or more), obp a sample
of the Open Bandit log (60 000 impressions, 287 clicks: its standard errors are wide). The model is a DeepFM (Guo et al.
2017): tables of 16 columns, first and second order terms, an MLP of three layers of --width, in float32. The log is
split by time: the latest tenth judges, the tenth before it stops the training, and compression is calibrated on
impressions drawn from what is before. Values that the training part does not hold share a row. A method is its name, or
NAME:ALLOCATION.

AUC +- is its standard error, `change` the difference to the dense model with that of the paired difference (DeLong et
al. 1988). Sizes are those of the whole model; --keep is of its bytes. Seconds are CPU time of the fits and of the first
choice, and then of each choice; collecting the statistics is printed apart.
`auto` makes no trials here, for want of a language model. A choice that is that of the budget before is not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
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


def delong(scores: Tensor, clicks: Tensor, others: Tensor | None = None) -> tuple[float, float]:
    """Area under the curve and its standard error, or the difference to that of other scores of the same samples."""
    which = clicks.numpy() > 0.5
    yes, no = placements(scores.numpy(), which)
    if others is not None:
        other_yes, other_no = placements(others.numpy(), which)
        yes, no = yes - other_yes, no - other_no
    return float(yes.mean()), float((yes.var(ddof=1) / len(yes) + no.var(ddof=1) / len(no)) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recbole", type=Path, help="where recbole was unpacked")
    parser.add_argument("--obp", type=Path, help="where obp was unpacked")
    parser.add_argument("--methods", default=DEFAULT)
    parser.add_argument("--keep", default="0.9,0.8,0.7,0.6,0.5,0.33,0.25,0.2,0.1")
    parser.add_argument("--width", type=int, default=256, help="of the layers of the MLP")
    parser.add_argument("--calibration", type=int, default=16384, help="impressions")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, help="folder that keeps the trained models")
    add_option(parser)
    options = parser.parse_args()
    logs = [("ml-100k", movielens, options.recbole), ("open bandit", bandit, options.obp)]
    for name, read, root in logs:
        if root is not None:
            run(name, read(root), options)


def dense_model(name: str, sizes: dict[str, int], parts: list[Part], options: Any) -> DeepFM:
    torch.manual_seed(options.seed)
    model = DeepFM(sizes, options.width)
    file = (
        options.models
        and options.models / f"deepfm-{name.replace(' ', '-')}-{options.width}-{options.seed}.safetensors"
    )
    if file and file.is_file():
        model.load_state_dict(load_file(file))
        return model.eval()
    clock = time.process_time()
    epoch = train(model, parts, options.seed, options.epochs, 1e-3)
    print(f"trained to epoch {epoch} in {time.process_time() - clock:.0f} CPU seconds")
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), file)
    return model


def run(log: str, rows: list[Row], options: Any) -> None:
    sizes, parts = encode(rows)
    model, (_, clicks) = dense_model(log, sizes, parts, options), parts[2]
    reference = logits_of(model, parts[2])
    sites = find_sites(model, embeddings=True)
    wanted = [name for name in options.methods.split(",") if name]
    needs = sorted({n for m in wanted for n in METHODS.find(m.partition(":")[0]).needs}, key=lambda need: need.value)
    picked = torch.randperm(len(parts[0][1]), generator=torch.Generator().manual_seed(options.seed))
    data = [fields for fields, _ in batches(parts[0], picked[: options.calibration])]
    clock = time.process_time()
    statistics, _ = statistics_for(model, {s.name: s.module for s in sites}, needs, data, seed=options.seed)
    print(
        f"{log}: {', '.join(f'{int(c.sum())} clicks of {len(c)}' for _, c in parts)} to train, validate and judge; "
        f"tables of {', '.join(f'{n} {size}' for n, size in sizes.items())}; calibrated on {options.calibration} "
        f"impressions in {time.process_time() - clock:.1f} CPU seconds; {torch.get_num_threads()} threads, seed "
        f"{options.seed}"
    )
    print(f"{'method':>12} {'keep':>5} {'kB':>7} {'k par.':>7} {'AUC':>16} {'change':>18} {'log loss':>8} {'CPU s':>6}")
    base, error = delong(reference, clicks)
    whole = make_plan(model, sites, METHODS.find("svd"), {}).totals
    kept = Rows("compressors.clicks", options.json)
    setting = {"log": log, "width": options.width, "calibration": options.calibration, "seed": options.seed}
    found = {"auc": base, "stderr": error, "log_loss": log_loss(reference, clicks), **whole}
    kept.add({**setting, "method": "dense", "keep": 1.0}, found)
    dense = f"{base:.4f} +- {error:.4f} {'':>18} {log_loss(reference, clicks):>8.4f}"
    print(f"{'dense':>12} {1:>5.2f} {whole['bytes'] / 1e3:>7.1f} {whole['parameters'] / 1e3:>7.1f} {dense}", flush=True)
    reached: defaultdict[float, list[str]] = defaultdict(list)
    for method in wanted:
        clock = time.process_time()
        card = METHODS.find(method.partition(":")[0])
        allocation = method.partition(":")[2] or card.allocation
        plan = make_plan(model, sites, card, statistics)
        plan.fit(errors=allocation != "uniform")
        previous, last = None, 1.0
        for keep in map(float, options.keep.split(",")):
            try:
                choice = plan.choose(keep, "bytes", allocation)
            except ValueError as reason:
                print(f"{method:>12} {keep:>5.2f} {str(reason)[:100]}", flush=True)
                continue
            if choice == previous:
                reached[keep] += [f for f in reached[last] if f.rstrip("*") == method]
                continue
            previous, last = choice, keep
            small = share(model)
            apply(small, plan, choice)
            seconds = time.process_time() - clock
            logits = logits_of(small, parts[2])
            (auc, wide), (change, paired) = delong(logits, clicks), delong(logits, clicks, reference)
            totals = make_plan(small, [], card, {}).totals
            found = {"auc": auc, "stderr": wide, "change": change, "change_stderr": paired, "cpu_seconds": seconds}
            found |= {"log_loss": log_loss(logits, clicks), **totals}
            kept.add({**setting, "method": method, "keep": keep}, found)
            if change >= -error:
                reached[keep].append(method + "*" * (change >= -paired))
            print(
                f"{method:>12} {keep:>5.2f} {totals['bytes'] / 1e3:>7.1f} {totals['parameters'] / 1e3:>7.1f} "
                f"{auc:.4f} +- {wide:.4f} {change:>+8.4f} +- {paired:.4f} {found['log_loss']:>8.4f} {seconds:>6.2f}",
                flush=True,
            )
            clock = time.process_time()
    for keep, names in sorted(reached.items(), reverse=True):
        print(f"at {1 / keep:.1f}x smaller, less than a standard error below the dense AUC: {', '.join(names)}")
    print("(*: and not below it by more than one standard error of the paired difference)")


if __name__ == "__main__":
    main()
