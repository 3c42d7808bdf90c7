"""Fewer experts, or smaller ones: perplexity of a mixture of experts at 75, 50 and 25 % of the bytes of its experts.

    python -m benchmarks.compressors.experts --model DIR [--dtype bfloat16] [--samples N] [--judged N]

DIR is what `train_moe` wrote; calibration is DIR/training.txt, and DIR/held-out.txt judges. All methods
change the experts only, read the same statistics, and may take the bytes that the kept share of the experts takes; a
method of few bits takes less than it may. `drop` is router-weighted pruning as in REAP (Lasby 2025, arXiv 2510.13999),
written from its formula: the experts with the least mean of gate times norm of output over the tokens they are sent
go, and the router chooses among the others. `kfac per visit` is kfac with gradients weighed by visit of an expert and
not by token of the text. `rank R` behind sub-moe cuts the joint decomposition of a cluster off, at the bytes of whole
merged experts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.experts import Experts, experts, per_token
from eckart.models.fused_experts import unfuse
from eckart.models.modules import StructuredLinear
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.statistics import Need, Statistics, statistics_for
from eckart.structures import Dense, Shared
from eckart.texts.sequences import sequences

LENGTH = 128
SHARES = (0.75, 0.5, 0.25)
ARMS = ("sub-moe", "kfac", "kfac per visit", "lord", "gptq")


def model_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in model.state_dict().values()}.values())


@torch.no_grad()
def accuracy(model: nn.Module, tokens: Tensor) -> float:
    """Share of the next tokens that the model ranks first."""
    right = sum(int((model(b).logits[:, :-1].argmax(-1) == b[:, 1:]).sum()) for b in tokens.split(8))
    return right / tokens[:, 1:].numel()


@torch.no_grad()
def saliency(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    """REAP: the mean over the tokens that an expert is sent of gate times norm of its output, for every expert."""
    sums: dict[str, Tensor] = {name: torch.zeros(2, len(m)) for name, m in experts(model).items()}

    def hook(name: str) -> Any:
        def record(module: Any, arguments: tuple[Tensor, ...]) -> None:
            x, index, gate = arguments
            for i, expert in enumerate(module):
                token, place = torch.where(index == i)
                y = expert["down_proj"](module.inner([expert["gate_proj"](x[token]), expert["up_proj"](x[token])]))
                sums[name][0, i] += (gate[token, place].float() * y.float().norm(dim=1)).sum()
                sums[name][1, i] += len(token)

        return record

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in experts(model).items()]
    for batch in batches:
        model(batch)
    for handle in handles:
        handle.remove()
    return {name: total / count.clamp_min(1) for name, (total, count) in sums.items()}


class Chosen(nn.Module):
    """A Mixtral router that knows only some of the experts."""

    def __init__(self, router: Any, kept: Tensor) -> None:
        super().__init__()
        self.weight, self.top_k, self.kept = nn.Parameter(router.weight[kept]), router.top_k, kept

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = nn.functional.linear(x.reshape(-1, x.shape[-1]), self.weight)
        weights, index = logits.float().softmax(-1).topk(self.top_k, -1)
        return logits, weights / weights.sum(-1, keepdim=True), self.kept[index]


def dropped(model: nn.Module, salient: Mapping[str, Tensor], kept: float) -> tuple[nn.Module, int]:
    """The model without some of its experts, and the bytes it is left with."""
    trial: Any = share(model)
    saved = 0
    for name, module in experts(trial).items():
        count = round(kept * len(module))
        layer = trial.get_submodule(name.rpartition(".")[0])
        saved += sum(p.numel() * p.element_size() for p in module.parameters()) * (len(module) - count) // len(module)
        layer.gate = Chosen(layer.gate, salient[name].topk(count).indices)
    return trial, model_bytes(model) - saved


@torch.no_grad()
def cut(model: nn.Module, dense: nn.Module, rank: int) -> None:
    """Projects each merged matrix on the leading left vectors of the joint decomposition of its cluster, in place."""
    for name, module in experts(model).items():
        clusters: dict[int, list[str]] = {}
        for i, expert in enumerate(module):
            linear: Any
            for role, linear in expert.named_children():
                if isinstance(linear, StructuredLinear):
                    part = linear.structure
                    owner = part.owner if isinstance(part, Shared) else part
                    clusters.setdefault(id(owner), []).append(f"{name}.{i}.{role}")
        for names in clusters.values():
            if len(names) > 1:
                merged: Any = model.get_submodule(names[0])
                assert isinstance(merged.structure, Dense)
                joint = torch.cat([dense.get_submodule(n).weight.detach().double() for n in names], 1)  # type: ignore[operator]
                u = torch.linalg.svd(joint, full_matrices=False)[0][:, :rank]
                merged.structure.weight.copy_(u @ (u.T @ merged.structure.weight.double()))


def fitted(model: nn.Module, name: str, raw: Mapping[str, Statistics]) -> tuple[Plan, float]:
    start = time.process_time()
    sites = find_sites(model, ["*.experts.*"])
    statistics = raw if name.endswith("per visit") else per_token(model, raw)
    plan = make_plan(model, sites, METHODS.find(name.split()[0]), statistics)
    plan.fit()
    return plan, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--judged", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    model: Any
    model, tokenizer = load_model(str(options.model), dtype=getattr(torch, options.dtype))
    unfuse(model)
    texts = [(options.model / f"{name}.txt").read_text("utf-8") for name in ("training", "held-out")]
    counts = options.samples, options.judged
    calibration, judged = (
        sequences(tokenizer, text, LENGTH, n, options.seed) for text, n in zip(texts, counts, strict=True)
    )
    batches = list(calibration.split(8))
    start = time.process_time()
    modules = {site.name: site.module for site in find_sites(model, ["*.experts.*"])}
    needs = {need for name in ARMS for need in METHODS.find(name.split()[0]).needs}
    raw, _ = statistics_for(model, modules, sorted(needs, key=list(Need).index), batches, seed=options.seed)
    print(f"statistics of {calibration.numel()} tokens: {time.process_time() - start:.0f} CPU seconds")
    start = time.process_time()
    salient = saliency(model, batches)
    scored = time.process_time() - start
    visits = [[raw[f"{n}.{i}.up_proj"].tokens for i in range(len(m))] for n, m in experts(model).items()]
    print(f"tokens that reached each expert: {visits}")
    total = model_bytes(model)
    inside = sum(p.numel() * p.element_size() for m in experts(model).values() for p in m.parameters())
    before = accuracy(model, judged)
    found = evaluate(model, judged, micro_batch=8)
    print(f"{total} bytes, {inside} of them in experts; {found.tokens} tokens judged; {options.dtype}")
    print(f"{'experts':>8} {'method':<16} {'perplexity':>10} {'error':>6} {'accuracy':>9} {'bytes':>7} {'CPU s':>6}")
    print(f"{'100 %':>8} {'dense':<16} {found.perplexity:>10.2f} {found.stderr:>6.2f} {'100.0 %':>9} {'100.0 %':>7}")

    rows = Rows("compressors.experts", options.json)
    setting = {"model": options.model.name, "samples": options.samples, "judged": options.judged}
    setting |= {"dtype": options.dtype, "seed": options.seed}
    dense = {"perplexity": found.perplexity, "stderr": found.stderr, "accuracy": before}
    rows.add({**setting, "method": "dense", "experts": 1.0}, dense)

    def show(kept: float, name: str, trial: nn.Module, size: int, seconds: float) -> None:
        result = evaluate(trial, judged, micro_batch=8)
        right = accuracy(trial, judged) / before
        measured = {"share": size / total, "perplexity": result.perplexity, "stderr": result.stderr}
        measured |= {"relative_accuracy": right, "cpu_seconds": seconds}
        rows.add({**setting, "method": "dropping experts" if name == "drop" else name, "experts": kept}, measured)
        print(
            f"{kept:>6.0%}   {name:<16} {result.perplexity:>10.2f} {result.stderr:>6.2f} {right:>9.1%} "
            f"{size / total:>7.1%} {seconds:>6.1f}",
            flush=True,
        )

    plans = {name: fitted(model, name, raw) for name in ARMS}
    width = next(m for m in model.modules() if isinstance(m, Experts))[0]["up_proj"].weight.shape[0]
    for kept in SHARES:
        show(kept, "drop", *dropped(model, salient, kept), scored)
        for name, (plan, seconds) in plans.items():
            trial = share(model)
            start = time.process_time()
            try:
                choice = plan.choose(1 - (1 - kept) * inside / total, "bytes")
            except ValueError as error:
                print(f"{kept:>6.0%}   {name}: {str(error).split(';')[0]}")
                continue
            apply(trial, plan, choice)
            show(kept, name, trial, model_bytes(trial), seconds + time.process_time() - start)
            if name == "sub-moe":
                for part in 2, 4:
                    cut(trial, model, width // part)
                    show(kept, f"sub-moe rank {width // part}", trial, model_bytes(trial), 0.0)


if __name__ == "__main__":
    main()
