"""Fewer experts of an upcycled mixture: merged ones, with and without their routers, beside dropped ones.

    python -m benchmarks.compressors.upcycled --model DIR [--model DIR ...] [--keep 0.75,0.5]

DIR is what `train_moe --from` wrote; calibration is DIR/training.txt, and DIR/held-out.txt judges. All arms keep the
same number of experts in every layer, see the same tokens, and are in float32:

- `drop`: router-weighted pruning as in REAP (Lasby 2025, arXiv 2510.13999), see `experts`.
- `drop by visits`: those with the fewest visits go.
- `m-smoe`: experts join, among the most visited ones, that with the most similar row of the router, and are averaged by
  visits (Li 2024, arXiv 2310.01334, without permuting neurons).
- `sub-moe`: clusters by outputs, averaged by visits; the router's rows stay, and lead to the merged experts.
- `sub-moe, sums`: the probabilities of a cluster are added up before the best clusters are chosen.
- `sub-moe, means`: the rows of a cluster are averaged, and the logarithm of their number is added.

The rise is that of the mean loss over the mixture as it was, with the paired standard error over the sequences, and
`against drop` the same over `drop`; accuracy is relative to the mixture's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from benchmarks.compressors.experts import LENGTH, accuracy, dropped, saliency
from eckart.compressors._merged_experts import merging
from eckart.compressors.contract import METHODS
from eckart.compressors.sub_moe import output_gram
from eckart.layouts.experts import Mixture
from eckart.linalg.clustering import cosine_clusters
from eckart.models.experts import experts
from eckart.models.fused_experts import unfuse
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.statistics import Need, Statistics, statistics_for
from eckart.texts.sequences import sequences

Labels = Mapping[str, Tensor]


class Merged(nn.Module):
    """A Mixtral router over clusters of experts; a token goes to the first expert of a cluster."""

    def __init__(self, router: Any, label: Tensor, means: bool) -> None:
        super().__init__()
        self.top_k = router.top_k
        _, label = label.unique(return_inverse=True)
        self.member = torch.nn.functional.one_hot(label).to(router.weight)
        self.first = torch.stack([(label == c).nonzero()[0, 0] for c in range(self.member.shape[1])])
        self.weight = nn.Parameter(router.weight.detach().clone(), requires_grad=False)
        self.means = means

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = nn.functional.linear(x.reshape(-1, x.shape[-1]), self.weight)
        if self.means:
            count = self.member.sum(0)
            probabilities = (logits @ self.member / count + count.log()).softmax(-1)
        else:
            probabilities = logits.softmax(-1) @ self.member
        gates, index = probabilities.topk(min(self.top_k, probabilities.shape[1]), -1)
        return logits, gates / gates.sum(-1, keepdim=True), self.first[index]


@torch.inference_mode()
def losses(model: Any, tokens: Tensor) -> Tensor:
    """The mean negative log-likelihood of each sequence, (n,)."""
    found = []
    for ids in tokens.split(16):
        log_q = model(ids, use_cache=False).logits[:, :-1].log_softmax(-1)
        found.append(-log_q.gather(-1, ids[:, 1:, None]).double().mean((1, 2)))
    return torch.cat(found)


def merged(model: nn.Module, labels: Labels, visits: Labels, router: str) -> nn.Module:
    """Every expert the mean of its cluster by visits; the router as it was ("rows"), or over "sums" or "means"."""
    trial: Any = share(model)
    for name, module in experts(trial).items():
        weights = merging(labels[name], visits[name])
        own: Any = [dict(expert.items()) for expert in experts(model)[name]]  # type: ignore[operator]
        for i, expert in enumerate(module):
            for role in module.roles:
                parts = torch.stack([each[role].weight.detach().double() for each in own])
                layer: Any = expert[role]  # type: ignore[index]
                layer.weight = nn.Parameter(torch.einsum("e,eij->ij", weights[i], parts).float())
        if router != "rows":
            layer = trial.get_submodule(name.rpartition(".")[0])
            layer.gate = Merged(layer.gate, labels[name], router == "means")
    return trial


def by_outputs(model: nn.Module, statistics: Mapping[str, Statistics], count: int) -> tuple[Labels, dict[str, float]]:
    """The clusters that sub-moe makes, and the mean cosine between the outputs of two experts, by layer."""
    labels, cosines = {}, {}
    for name, module in experts(model).items():
        names = [f"{name}.{i}.{role}" for i in range(len(module)) for role in module.roles]
        weights: Any = [model.get_submodule(n).weight.detach() for n in names]
        inputs = [statistics[f"{name}.{i}.up_proj"] for i in range(len(module))]
        x = torch.cat([s.get(Need.INPUT_SAMPLE)[:256] for s in inputs if s.tokens])
        gram = output_gram(weights, Mixture(len(module), module.inner), x)
        labels[name] = cosine_clusters(gram, torch.Generator().manual_seed(0))[count]
        norm = gram.diagonal().sqrt()
        cosine = gram / norm / norm[:, None]
        cosines[name] = float((cosine.sum() - len(gram)) / (len(gram) * (len(gram) - 1)))
    return labels, cosines


def by_routers(model: nn.Module, visits: Labels, count: int) -> Labels:
    """Every expert with the one of the most visited whose row of the router is nearest by cosine."""
    labels = {}
    for name in experts(model):
        router: Any = model.get_submodule(name.rpartition(".")[0])
        rows = nn.functional.normalize(router.gate.weight.detach().double(), dim=1)
        centres = visits[name].topk(count).indices
        label = centres[(rows @ rows[centres].T).argmax(1)]
        labels[name] = label.index_copy(0, centres, centres)
    return labels


def arms(
    model: nn.Module, keep: float, labels: Labels, visits: Labels, salient: Labels
) -> dict[str, Callable[[], nn.Module]]:
    """What makes each of the smaller models."""
    count = len(next(iter(labels.values()))) * keep
    return {
        "drop": lambda: dropped(model, salient, keep)[0],
        "drop by visits": lambda: dropped(model, visits, keep)[0],
        "m-smoe": lambda: merged(model, by_routers(model, visits, round(count)), visits, "rows"),
        "sub-moe": lambda: merged(model, labels, visits, "rows"),
        "sub-moe, sums": lambda: merged(model, labels, visits, "sums"),
        "sub-moe, means": lambda: merged(model, labels, visits, "means"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, action="append", type=Path)
    parser.add_argument("--keep", default="0.75,0.5")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--judged", type=int, default=256)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("compressors.upcycled", options.json)
    for directory in options.model:
        model: Any
        model, tokenizer = load_model(str(directory), dtype=torch.float32)
        unfuse(model)
        calibration, judged = (
            sequences(tokenizer, (directory / f"{name}.txt").read_text("utf-8"), LENGTH, n, 0)
            for name, n in (("training", options.samples), ("held-out", options.judged))
        )
        batches = list(calibration.split(8))
        modules = {site.name: site.module for site in find_sites(model, ["*.experts.*"])}
        statistics, _ = statistics_for(model, modules, METHODS.find("sub-moe").needs, batches, seed=0)
        visits = {
            n: torch.tensor([float(statistics[f"{n}.{i}.up_proj"].tokens) for i in range(len(m))]).double()
            for n, m in experts(model).items()
        }
        salient = saliency(model, batches)
        dense, right = losses(model, judged), accuracy(model, judged)
        setting = {"model": directory.name, "samples": options.samples, "judged": options.judged}
        experts_of_layer = len(next(iter(visits.values())))
        for keep in map(float, options.keep.split(",")):
            count = round(keep * experts_of_layer)
            labels, cosines = by_outputs(model, statistics, count)
            made = arms(model, keep, labels, visits, salient)
            what = {**setting, "experts": keep}
            mean = sum(cosines.values()) / len(cosines)
            rows.add(
                what | {"method": "dense"},
                {"perplexity": math.exp(float(dense.mean())), "accuracy": right, "cosine": mean},
            )
            print(
                f"{directory.name}, {keep:.0%}: dense {math.exp(float(dense.mean())):.2f}, cosine {mean:.3f}",
                flush=True,
            )
            first: Tensor | None = None
            for name, make in made.items():
                trial = make()
                own = losses(trial, judged)
                first = own if first is None else first
                found = {"perplexity": math.exp(float(own.mean())), "accuracy": accuracy(trial, judged) / right}
                for key, other in ("rise", dense), ("against drop", first):
                    change = own - other
                    found |= {key: float(change.mean()), f"{key}, paired": float(change.std()) / math.sqrt(len(change))}
                rows.add(what | {"method": name}, found)
                print(
                    f"  {name:<14} {found['perplexity']:>8.2f} rise {found['rise']:+.4f} ± {found['rise, paired']:.4f}"
                    f", over drop {found['against drop']:+.4f} ± {found['against drop, paired']:.4f}, "
                    f"accuracy {found['accuracy']:.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
