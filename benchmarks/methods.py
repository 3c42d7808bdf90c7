"""All methods at one budget after another: perplexity, divergence, size, time, and who is on the front.

    python benchmarks/methods.py --model smollm2 --of bytes --keep 0.6,0.4,0.3 --methods kfac,gptq,auto

All methods read the same statistics, collected once, with every eighth calibration sequence held back, on which `auto`
makes its trials. Calibration and judges are texts that packages carry, or NAME=FILE. A method that cannot meet a budget
in the asked currency is left out of its rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart import METHODS, methods
from eckart.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.compete import held_back, trials
from eckart.compress import apply
from eckart.evaluate import evaluate
from eckart.models.hf import load_model
from eckart.models.sites import find_sites
from eckart.models.text import sequences
from eckart.models.tree import share
from eckart.plan import CURRENCIES, make_plan
from eckart.progress import silent
from eckart.speed import speed
from eckart.statistics import cache_directory, statistics_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--calibration", default="mixture", help="NAME=FILE or NAME")
    parser.add_argument("--judge", action="append", default=[], help="NAME=FILE or NAME; repeatable")
    parser.add_argument("--methods", default=",".join(sorted(METHODS)))
    parser.add_argument("--of", default="bytes", choices=CURRENCIES)
    parser.add_argument("--keep", default="0.9,0.8,0.7,0.6,0.5")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--eval-samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--embeddings", action="store_true", help="compress the embeddings, and a head tied to them, too"
    )
    parser.add_argument("--decode", action="store_true", help="time decoding too")
    parser.add_argument("--json", type=Path, help="append one JSON line a row to this file")
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    label, _, file = options.calibration.partition("=")
    size = options.samples, options.length, options.seed
    text = calibration_text(file or label)
    tokens = calibration_tokens(file or label, text, model, tokenizer, *size, cache_directory())
    batches, trial = held_back([b for b in as_batches(tokens, tokenizer, *size)[0] if isinstance(b, Tensor)])
    named = [item.partition("=")[::2] for item in options.judge or ["news", "docstrings"]]
    judges = {
        name: sequences(tokenizer, text_of(path or name), options.length, options.eval_samples, options.seed)
        for name, path in named
    }
    print(
        f"{options.model}, calibrated on {label} ({sum(b.numel() for b in batches)} tokens in sequences of "
        f"{options.length}, {trial.numel()} more held back, seed {options.seed}), judged on {options.eval_samples} "
        f"sequences of {options.length} tokens; {torch.get_num_threads()} threads; perplexity +- standard error, KL "
        f"from the dense model in nats a token; --keep of {options.of}"
    )
    sites = find_sites(model, embeddings=options.embeddings)
    wanted = options.methods.split(",")
    needs = sorted({n for m in wanted for n in methods.find(m).needs}, key=lambda need: need.value)
    statistics, _ = statistics_for(
        model, {s.name: s.module for s in sites}, needs, batches, seed=options.seed, cache=cache_directory()
    )
    print(
        f"{'method':>16} {'keep':>5} {'MB':>7} {'M par.':>7} "
        + "".join(f"{n:>19} {'KL':>7} " for n in judges)
        + "seconds"
    )
    dense = {name: evaluate(model, ids, micro_batch=4) for name, ids in judges.items()}
    whole = make_plan(model, sites, methods.find("svd"), {}).totals
    cells = "".join(f"{e.perplexity:>10.2f} +- {e.stderr or 0:<5.2f} {0:>7.3f} " for e in dense.values())
    print(f"{'dense':>16} {1:>5.2f} {whole['bytes'] / 1e6:>7.1f} {whole['parameters'] / 1e6:>7.1f} {cells}", flush=True)
    for name in wanted:
        clock = time.perf_counter()
        card = methods.find(name)
        plan = make_plan(model, sites, card, statistics)
        plan.fit(errors=card.allocation != "uniform")
        fitted = time.perf_counter() - clock
        for keep in map(float, options.keep.split(",")):
            clock = time.perf_counter()

            def choose(only: str | None = None, keep: float = keep, plan: Any = plan) -> dict[str, int | None]:
                return plan.choose(keep, options.of, only=only)

            history: list[dict[str, float | str]] = []
            try:
                if name == "auto":
                    choice, history = trials(plan, model, trial, choose, apply, silent)
                else:
                    choice = choose()
            except ValueError as error:
                print(f"{name:>16} {keep:>5.2f} {str(error)[:110]}", flush=True)
                continue
            small = share(model)
            apply(small, plan, choice)
            seconds = fitted + time.perf_counter() - clock
            totals = make_plan(small, [], card, {}).totals
            row: dict[str, Any] = {"model": options.model, "calibration": label, "method": name, "of": options.of}
            row |= {"keep": keep, "seconds": seconds, "seed": options.seed, "trials": history, **totals, "judges": {}}
            cells = ""
            for judge, ids in judges.items():
                found = evaluate(small, ids, model, micro_batch=4)
                row["judges"][judge] = {"perplexity": found.perplexity, "stderr": found.stderr, "kl": found.kl}
                cells += f"{found.perplexity:>10.2f} +- {found.stderr or 0:<5.2f} {found.kl:>7.3f} "
            if options.decode:
                rates = speed({"dense": model, "small": small}, prefill_tokens=128, decode_tokens=32)
                row["decode_ratio"] = rates["decode_ratio"]
                cells += f"decode {rates['decode_ratio']:.2f}x "
            megabytes, millions = totals["bytes"] / 1e6, totals["parameters"] / 1e6
            print(f"{name:>16} {keep:>5.2f} {megabytes:>7.1f} {millions:>7.1f} {cells}{seconds:>7.0f}", flush=True)
            for entry in history:
                print(
                    f"{'':>16} trial of {entry['method']}: KL {entry['kl']:.3f}, predicted {entry['predicted_kl']:.3f}"
                )
            if options.json:
                with options.json.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
