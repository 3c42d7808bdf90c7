"""A third of the bytes: a language model whose weights lie on no grid, by `auto` and by single methods.

    python -m benchmarks.compressors.third --methods auto,gptq,nf4 --keep 0.333 [--embeddings] [--decode]
    python -m benchmarks.compressors.third --dtype bfloat16 --methods lq-lora,lq-lora:group=64:rank=64,gptq --keep 0.4

The channels of smollm2 are put in another order first (`common/shuffled.py`), so that no quantizer meets the grid of
its file; it is in float32, or rounded to --dtype. Options of a method stand behind colons. All methods read the same
statistics, and every eighth calibration sequence is held back for the trials of `auto`. Perplexities are compared
sequence by sequence, and so are divergences with those of the first method. CPU seconds are those of fitting, choosing,
trials and building; the statistics have their own.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.harness import chosen
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.shuffled import shuffled
from eckart.compressors.contract import METHODS, CompressorCard
from eckart.jobs.calibration import as_batches, calibration_text, text_of
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.trials import held_back, remembered
from eckart.jobs.evaluate.quality import Reference, evaluate
from eckart.jobs.evaluate.speed import speed
from eckart.models.modules import StructuredLinear
from eckart.models.sharing import share
from eckart.models.sites import find_sites, model_bytes
from eckart.models.transformers import load_model
from eckart.statistics import Statistics, cache_directory, statistics_for
from eckart.structures import Quantized, Sum
from eckart.texts.sequences import sequences


def judged(model: nn.Module, reference: Reference, ids: Tensor) -> dict[str, Any]:
    """Perplexity, its change and the divergence from a dense model, with errors over sequences that are paired."""
    each = [evaluate(model, row[None], reference) for row in ids]
    nll = torch.tensor([one.nll for one in each]).double()
    rise = nll - torch.tensor([one.reference.nll for one in each if one.reference is not None]).double()
    kl = torch.tensor([one.kl for one in each]).double()
    change = math.exp(float(rise.mean()))
    return {
        "perplexity": float(nll.mean().exp()),
        "change": change - 1,
        "change_stderr": change * error(rise),
        "kl": float(kl.mean()),
        "kl_stderr": error(kl),
        "kl of each": [round(value, 6) for value in kl.tolist()],
    }


def card_of(arm: str) -> CompressorCard:
    """METHOD[:OPTION=VALUE...]."""
    name, *options = arm.split(":")
    return METHODS.find(name).taking({word: int(value) for word, _, value in (each.partition("=") for each in options)})


def error(values: Tensor) -> float:
    """Standard error of a mean."""
    return float(values.std()) / math.sqrt(len(values))


def forms(choice: Mapping[str, int | None], plan: Plan) -> dict[str, int]:
    """How many matrices became what."""
    found: dict[str, int] = {}
    for name, size in choice.items():
        curve = plan.curves[name]
        method, own = ("dense", "") if size is None else curve.members[curve.sizes.index(size)]
        found[f"{method} {own}".strip()] = found.get(f"{method} {own}".strip(), 0) + 1
    return found


def codes_and_products(model: nn.Module) -> dict[str, float]:
    """What a budget made of codes and products beside them: means over the matrices, each counted by its entries."""
    found: dict[str, float] = {}
    total = 0
    for module in model.modules():
        if not isinstance(module, StructuredLinear) or not isinstance(module.structure, Sum):
            continue
        codes, product = module.structure.operands()
        if isinstance(codes, Quantized):
            count = math.prod(module.structure.shape)
            bits = 8 * module.structure.cost().bytes / count
            each = {"bits": codes.bits, "group": codes.group, "rank": product.operands()[0].shape[1], "in all": bits}
            total += count
            for name, value in each.items():
                found[name] = found.get(name, 0.0) + count * value
    return {name: value / total for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="auto,gptq,nf4", help="with commas, auto first")
    parser.add_argument("--keep", default="0.333", help="shares of the bytes, with commas")
    parser.add_argument("--embeddings", action="store_true", help="compress the embeddings, which are the head, too")
    parser.add_argument("--decode", action="store_true", help="time decoding against dense")
    parser.add_argument("--calibration", default="wikipedia")
    parser.add_argument("--judge", default="news")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--eval-samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    model, tokenizer = load_model("smollm2", dtype=torch.float32)
    shuffled(model, options.seed)
    model.to(getattr(torch, options.dtype))
    rows = Rows("compressors.third", options.json)
    given = {
        name: getattr(options, name) for name in ("embeddings", "calibration", "samples", "judge", "length", "seed")
    }
    given |= {"dtype": options.dtype} if options.dtype != "float32" else {}
    setting = {"model": "smollm2, shuffled", **given, "judged on sequences": options.eval_samples}
    ids = sequences(tokenizer, text_of(options.judge), options.length, options.eval_samples, options.seed)
    read, _ = as_batches(
        calibration_text(options.calibration), tokenizer, options.samples, options.length, options.seed
    )
    batches, trial = held_back([batch for batch in read if isinstance(batch, Tensor)])
    sites = find_sites(model, embeddings=options.embeddings)
    names: Sequence[str] = options.methods.split(",")
    keeps = [*map(float, options.keep.split(","))]
    missing = [
        n for n in names if options.decode or any(not rows.get({**setting, "method": n, "keep": k}) for k in keeps)
    ]
    needs = sorted({need for name in missing for need in card_of(name).needs}, key=str)
    clock = time.process_time()
    statistics: Mapping[str, Statistics] = statistics_for(
        model, {site.name: site.module for site in sites}, needs, batches, seed=options.seed, cache=cache_directory()
    )[0]
    print(f"statistics: {time.process_time() - clock:.0f} CPU s", flush=True)
    reference = remembered(model, ids)
    plans: dict[str, tuple[Plan, float]] = {}
    threads = str(torch.get_num_threads())
    for keep in keeps:
        for name in names:
            what = {**setting, "method": name, "keep": keep}
            known = rows.get(what)
            if known is not None and (not options.decode or threads in known.found.get("decode", {})):
                print(line(name, keep, known.found), flush=True)
                continue
            if name not in plans:
                card, clock = card_of(name), time.process_time()
                plan = make_plan(model, sites, card, statistics)
                plan.fit(errors=card.allocation != "uniform")
                plans[name] = plan, time.process_time() - clock
            plan, fitted = plans[name]
            clock = time.process_time()
            choice, tried = chosen(plan, model, trial, "bytes", keep)
            small = share(model)
            apply(small, plan, choice)
            seconds = fitted + time.process_time() - clock
            found = {**judged(small, reference, ids), "share": model_bytes(small) / model_bytes(model)}
            found |= {"cpu_seconds": seconds, "forms": forms(choice, plan), "trials": tried}
            found |= {"means": codes_and_products(small)}
            if options.decode:
                rates = speed({"dense": model, "small": small}, prefill_tokens=128, decode_tokens=32)
                before = {} if known is None else known.found.get("decode", {})
                found["decode"] = {**before, threads: rates["decode_ratio"]}
            first = rows.get({**setting, "method": names[0], "keep": keep})
            if first is not None:
                behind = torch.tensor(found["kl of each"]) - torch.tensor(first.found["kl of each"])
                found |= {"kl_behind": float(behind.mean()), "kl_behind_stderr": error(behind)}
            rows.add(what, found)
            print(line(name, keep, found), flush=True)


def line(name: str, keep: float, found: Mapping[str, Any]) -> str:
    """A row for the terminal."""
    text = (
        f"{name:>10} {keep:.3f}: {found['share']:.3f} of the bytes, perplexity {found['perplexity']:.2f} "
        f"({found['change']:+.2%} +- {found['change_stderr']:.2%}), KL {found['kl']:.4f} +- {found['kl_stderr']:.4f}, "
        f"{found['cpu_seconds']:.0f} CPU s, {found['forms']}"
    )
    if "kl_behind" in found:
        text += f"; KL over that of the first {found['kl_behind']:+.4f} +- {found['kl_behind_stderr']:.4f}"
    for threads, ratio in found.get("decode", {}).items():
        text += f"; decoding {ratio:.2f} times as fast as dense, threads: {threads}"
    return text


if __name__ == "__main__":
    main()
