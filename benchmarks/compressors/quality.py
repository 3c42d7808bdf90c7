"""Perplexity of compressed language models: methods x budgets, calibrated on one text and judged on others.

    python -m benchmarks.compressors.quality --model smollm2 --calibration NAME=FILE \
        --judge NAME=FILE [--judge NAME=FILE ...]

FILE is a text file or the name of a text that a package carries (wikipedia, news, maths, technical, mixture). Novels
for a test on prose: the Debian package r-cran-janeaustenr. WikiText-2: Merity et al. 2016.

All methods read the same statistics, collected once. `svd-llm` is the peer: the optimum of the input-only metric by
Cholesky whitening and a full SVD at one ratio for all matrices, written out below from its paper (arXiv 2403.07378).
`kfac-plain` stores two full factors; `+sequential` and `+heal` behind the name of a method add these passes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors._low_rank import LowRank
from eckart.compressors.contract import METHODS
from eckart.jobs.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.jobs.compress.block_streams import observe
from eckart.jobs.compress.heal import cut, heal
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.refit import refit
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.places import replace
from eckart.models.sharing import share
from eckart.models.sites import find_sites, linear_parameters
from eckart.models.transformers import load_model
from eckart.statistics import Statistics, cache_directory, statistics_for
from eckart.structures import low_rank
from eckart.texts.sequences import sequences


def whitened_svd(weight: Tensor, second_moment: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """SVD-LLM: S = chol(E[x x^T]), W S = U Sg V^T, factors U_r Sg_r^1/2 and Sg_r^1/2 V_r^T S^-1, r = ratio mn/(m+n)."""
    out, columns = weight.shape
    rank = int(ratio * out * columns / (out + columns))
    moment = second_moment.double()
    root, failed = torch.linalg.cholesky_ex(moment)
    if failed.item():
        shift = 1e-6 - float(torch.linalg.eigvalsh(moment)[0])
        root = torch.linalg.cholesky(moment + shift * torch.eye(columns, dtype=torch.float64))
    u, s, vt = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    half = s[:rank].sqrt()
    right = torch.linalg.solve_triangular(root, half[:, None] * vt[:rank], upper=False, left=False)
    return (u[:, :rank] * half).to(weight.dtype), right.to(weight.dtype)


def svd_llm(model: nn.Module, statistics: dict[str, Statistics], ratio: float) -> nn.Module:
    trial = share(model)
    for site in find_sites(model):
        moment = statistics[site.name].input_second_moment
        assert moment is not None
        replace(trial, site, low_rank(*(f.contiguous() for f in whitened_svd(site.weight, moment, ratio))))
    return trial


def compressed(plan: Plan, model: nn.Module, keep: float, batches: list[Tensor], extra: str, steps: int) -> nn.Module:
    trial = share(model)
    choice = plan.choose(keep, "linear-parameters")
    apply(trial, plan, choice)
    if extra == "sequential":
        refit(trial, plan, choice, observe(model, plan.sites, batches))
    if extra == "heal":
        heal(trial, observe(model, plan.sites, cut(batches)), steps)
    return trial


def plain(plan: Plan) -> Plan:
    """The same plan with two full factors a matrix instead of the interpolative storage."""
    twin = Plan(plan.method, plan.groups, plan.statistics, plan.totals)
    for group in plan.groups:
        family = plan.method.candidates(group.kind, plan.members(group))
        assert isinstance(family, LowRank)
        twin.add(group, LowRank(family.weight, family.projection, mean=family.mean))
    return twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--calibration", default="mixture", help="NAME=FILE or NAME")
    parser.add_argument("--judge", action="append", default=[], help="NAME=FILE or NAME; repeatable")
    parser.add_argument("--methods", default="svd-llm,kfac-plain,kfac")
    parser.add_argument("--keep", default="0.9,0.8,0.6")
    parser.add_argument("--steps", type=int, default=20, help="of the arms +heal, for each block")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--eval-samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    named = [item.partition("=")[::2] for item in options.judge or ["news"]]
    model, tokenizer = load_model(options.model)
    label, _, file = options.calibration.partition("=")
    source = file or label
    size = options.samples, options.length, options.seed
    tokens = calibration_tokens(source, calibration_text(source), model, tokenizer, *size, cache_directory())
    batches, info = as_batches(tokens, tokenizer, *size)
    judges = {
        name: sequences(tokenizer, text_of(path or name), options.length, options.eval_samples, options.seed)
        for name, path in named
    }
    print(
        f"{options.model}, calibrated on {label} ({info['tokens']} tokens in sequences of {options.length}, seed "
        f"{options.seed}), judged on {options.eval_samples} sequences of {options.length} tokens; "
        f"{torch.get_num_threads()} threads"
    )
    sites = find_sites(model)
    wanted = options.methods.split(",")
    names = {name.split("+")[0].removesuffix("-plain") for name in wanted} - {"svd-llm"}
    needs = sorted({n for m in names for n in METHODS.find(m).needs} | set(METHODS.find("lord").needs), key=str)
    clock = time.perf_counter()
    statistics, _ = statistics_for(
        model, {s.name: s.module for s in sites}, needs, batches, seed=options.seed, cache=cache_directory()
    )
    print(f"statistics for {', '.join(n.value for n in needs)}: {time.perf_counter() - clock:.0f} s")
    rows = Rows("compressors.quality", options.json)
    setting = {
        "model": Path(options.model).name,
        "samples": options.samples,
        "length": options.length,
        "judged on sequences": options.eval_samples,
        "seed": options.seed,
    }
    dense = {name: evaluate(model, ids, micro_batch=4) for name, ids in judges.items()}
    for name, e in dense.items():
        what = {**setting, "judge": name, "method": "dense", "keep": 1.0}
        rows.add(what, {"perplexity": e.perplexity, "stderr": e.stderr})
    print(f"{'':>17} {'keep':>5} " + " ".join(f"{name:>22}" for name in judges))
    print(
        f"{'dense':>17} {1:>5.3f} "
        + " ".join(f"{e.perplexity:>10.2f} +- {e.stderr or 0:<8.2f}" for e in dense.values())
    )
    total = linear_parameters(model)
    plans: dict[str, Plan] = {}
    peers: dict[tuple[float, str], float] = {}
    for keep in map(float, options.keep.split(",")):
        for arm in wanted:
            clock = time.perf_counter()
            base = arm.split("+")[0].removesuffix("-plain")
            if arm == "svd-llm":
                trial = svd_llm(model, statistics, keep)
            else:
                if base not in plans:
                    plans = {base: make_plan(model, sites, METHODS.find(base), statistics)}
                    plans[base].fit()
                plan = plain(plans[base]) if arm.endswith("-plain") else plans[base]
                ids = [b for b in batches if isinstance(b, Tensor)]
                trial = compressed(plan, model, keep, ids, arm.partition("+")[2], options.steps)
            seconds = time.perf_counter() - clock
            cells = []
            kept = linear_parameters(trial) / total
            for name, tokens in judges.items():
                measured = evaluate(trial, tokens, micro_batch=4)
                rise = measured.perplexity - dense[name].perplexity
                peers.setdefault((keep, name), rise)
                cells.append(f"{measured.perplexity:>9.2f} rise {rise / peers[keep, name]:>6.3f}x")
                found = {"perplexity": measured.perplexity, "stderr": measured.stderr, "kept": kept}
                found |= {"times": measured.perplexity / dense[name].perplexity}
                if arm != wanted[0]:
                    found["rise"] = rise / peers[keep, name]
                rows.add({**setting, "calibrated on": label, "judge": name, "method": arm, "keep": keep}, found)
            print(
                f"{arm:>17} {kept:>5.3f} " + " ".join(f"{c:>22}" for c in cells) + f"   {seconds:>5.0f} s", flush=True
            )
    print("rise: perplexity above dense, as a multiple of the first method's rise on the same text at the same budget")


if __name__ == "__main__":
    main()
