"""Models with fewer units inside: how the budget is shared out, and what a narrower model is like.

    python -m benchmarks.compressors.narrow [--model smollm2] [--keep 0.8,0.7] [--speed]

Quality: `modegpt` with sizes that its own solver picks, with one share for all modules, and with the published
allocation by block influence; `modegpt-narrow`, which has one width for all layers, with and without its heads.
Perplexity on sequences of news, and the rise of the loss over the dense model with the paired standard error over the
sequences. `--speed` writes the narrow ones at the last of the shares as directories of plain transformers and takes
the least processor time of several interleaved rounds of prefill and of decoding, beside the dense model.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.jobs.compress.influence import attach_influence
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.exports.smaller import write as to_smaller_directory
from eckart.models.sharing import share
from eckart.models.sites import find_sites, linear_parameters
from eckart.models.transformers import load_model, write_model
from eckart.statistics import cache_directory, statistics_for
from eckart.texts.sequences import sequences

ARMS = (
    ("modegpt", "greedy", "*"),
    ("modegpt", "uniform", "*"),
    ("modegpt", "influence", "*"),
    ("modegpt-narrow", "uniform", "*"),
    ("modegpt-narrow", "uniform", "*.mlp.*"),
)
"""Method, allocation, and the matrices that it may take."""


@torch.inference_mode()
def losses(model: Any, tokens: Tensor) -> Tensor:
    """The mean negative log-likelihood of each sequence, (n,)."""
    found = []
    for ids in tokens.split(4):
        log_q = model(ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        found.append(-log_q.gather(-1, ids[:, 1:, None]).double().mean((1, 2)))
    return torch.cat(found)


@torch.inference_mode()
def seconds(model: Any, prompt: Tensor, steps: int) -> tuple[float, float]:
    """Processor seconds of a prompt, and of a step of decoding behind it."""
    start = time.process_time()
    output = model(prompt, use_cache=True, logits_to_keep=1)
    middle = time.process_time()
    for _ in range(steps):
        token = output.logits[:, -1:].argmax(-1)
        output = model(token, use_cache=True, past_key_values=output.past_key_values)
    return middle - start, (time.process_time() - middle) / steps


def compared(dense: nn.Module, small: nn.Module, prompt: Tensor, steps: int, rounds: int) -> dict[str, float]:
    best = {}
    for _ in range(rounds):
        for name, model in ("dense", dense), ("small", small):
            now = seconds(model, prompt, steps)
            best[name] = tuple(map(min, now, best.get(name, now)))
    prefill, decode = (best["dense"][i] / best["small"][i] for i in (0, 1))
    return {"prefill_ratio": prefill, "decode_ratio": decode}


def cache_bytes(model: Any) -> int:
    """Bytes of keys and values for a token."""
    cache = model(torch.zeros(1, 1, dtype=torch.long), use_cache=True).past_key_values
    return sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--keep", default="0.8,0.7")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--eval-samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser)
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    size = options.samples, options.length, options.seed
    tokens = calibration_tokens("mixture", calibration_text("mixture"), model, tokenizer, *size, cache_directory())
    batches, _ = as_batches(tokens, tokenizer, *size)
    judged = sequences(tokenizer, text_of("news"), options.length, options.eval_samples, options.seed)
    modules = {site.name: site.module for site in find_sites(model)}
    needs = METHODS.find("modegpt").needs
    statistics, _ = statistics_for(model, modules, needs, batches, seed=options.seed, cache=cache_directory())
    rows = Rows("compressors.narrow", options.json)
    setting = {"model": Path(options.model).name, "calibrated on": "mixture", "samples": options.samples}
    setting |= {"length": options.length, "judged on sequences": options.eval_samples, "seed": options.seed}
    total, keeps = linear_parameters(model), [float(keep) for keep in options.keep.split(",")]
    dense = None
    plans: dict[tuple[str, str], Plan] = {}

    def made(method: str, allocation: str, pattern: str, keep: float) -> nn.Module:
        if (method, pattern) not in plans:
            plan = make_plan(model, find_sites(model, [pattern]), METHODS.find(method), statistics)
            plan.fit()
            plans[method, pattern] = plan
        plan = plans[method, pattern]
        attach_influence(plan, model, allocation, batches)
        trial = share(model)
        apply(trial, plan, plan.choose(keep, "linear-parameters", allocation))
        return trial

    for keep in keeps if not options.speed else ():
        for method, allocation, pattern in ARMS:
            what = {"part": "quality", **setting, "method": method, "allocation": allocation, "taken": pattern}
            if rows.get(what | {"keep": keep}):
                continue
            if dense is None:
                dense = losses(model, judged)
                print(f"dense: perplexity {math.exp(float(dense.mean())):.2f}", flush=True)
            start = time.process_time()
            trial = made(method, allocation, pattern, keep)
            cpu = time.process_time() - start
            own = losses(trial, judged)
            rise = own - dense
            found = {"perplexity": math.exp(float(own.mean())), "dense": math.exp(float(dense.mean()))}
            found |= {"rise": float(rise.mean()), "paired": float(rise.std()) / math.sqrt(len(rise))}
            found |= {"kept": linear_parameters(trial) / total, "cpu_seconds": cpu}
            rows.add(what | {"keep": keep}, found)
            print(
                f"{keep:.0%} {method:<15} {allocation:<10} {pattern:<8} perplexity {found['perplexity']:>8.2f}, loss "
                f"{found['rise']:+.3f} ± {found['paired']:.3f}, {cpu:.0f} s",
                flush=True,
            )
    if not options.speed:
        return
    prompt = judged[:1]
    for method, allocation, pattern in ARMS[-2:]:
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch) / "own"
            own.mkdir()
            write_model(made(method, allocation, pattern, keeps[-1]), tokenizer, own)
            said = to_smaller_directory(str(own), Path(scratch) / "smaller")
            small, _ = load_model(str(Path(scratch) / "smaller"))
            found = compared(model, small, prompt, 16, options.rounds)
            found |= {"cache": cache_bytes(small) / cache_bytes(model), "sizes": said}
        what = {"part": "speed", "model": setting["model"], "method": method, "taken": pattern, "keep": keeps[-1]}
        rows.add(what | {"prompt": options.length, "dtype": "float32"}, found)
        print(f"{keeps[-1]:.0%} {method} {pattern}: {found}", flush=True)


if __name__ == "__main__":
    main()
