"""What choosing ranks and groups is worth to LQ-LoRA, beside bits alone: errors of a few matrices at equal bits.

    python -m benchmarks.compressors.configurations --layer 15

The attention matrices and the down projection of a layer of smollm2, its channels in another order
(`common/shuffled.py`) and rounded to bfloat16, so that no quantizer meets the grid of its file; the Fisher information
is that of some sequences of Wikipedia. A budget of so many bits a weight, scales and factors included, is shared out
over the matrices exactly. Arms: `chosen`, bits, groups and ranks; `bits and groups`, at the largest rank, which is the
published program (without the bits of scales); `bits`, in groups of 64 at that rank; `nf4`, which has one size, at its
own bits. Errors are sums of F (W - What)^2 over the same of the zero matrices.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.shuffled import shuffled
from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.jobs.calibration import text_of
from eckart.jobs.compress.plan import Plan, make_plan
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.statistics import Need, statistics_for
from eckart.structures import Quantized
from eckart.texts.sequences import sequences

NEEDS = (Need.FISHER_ROWS, Need.FISHER_COLUMNS)
ARMS = ("chosen", "bits and groups", "bits")


def solved(plan: Plan, bits: float) -> dict[str, Any]:
    """The least error at so many bits a weight, and what was chosen."""
    entries = sum(site.weight.numel() for site in plan.sites)
    dense = plan.total("bytes")
    keep = (dense - 2 * entries + bits * entries / 8) / dense
    choice = plan.choose(keep, "bytes", floor=0.0)
    error = plan.error(choice) / sum(curve.zero_error for curve in plan.curves.values())
    means = {"bits": 0.0, "group": 0.0, "rank": 0.0}
    stored = 0
    for group in plan.groups:
        size, weight = choice[group.name], group.sites[0].weight
        if size is None:
            raise Refused(f"{group.name} stays dense")
        structure = plan.build(group, size)[0].structure
        codes, product = structure.operands()
        assert isinstance(codes, Quantized)
        stored += structure.cost().bytes
        for name, value in (("bits", codes.bits), ("group", codes.group), ("rank", product.operands()[0].shape[1])):
            means[name] += value * weight.numel() / entries
    return {"error": error, "stored": 8 * stored / entries, "means": means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--bits", default="4,5", help="of a weight in all, with commas")
    parser.add_argument("--arms", default="chosen,bits", help=f"with commas, of {', '.join(ARMS)}")
    parser.add_argument("--sequences", type=int, default=4, help="of 128 tokens, for the Fisher information")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model("smollm2", dtype=torch.float32)
    shuffled(model)
    ids = sequences(tokenizer, text_of("wikipedia"), 128, options.sequences, 0)
    pattern = f"re:layers[.]{options.layer}[.](self_attn|mlp.down)"
    modules = {site.name: site.module for site in find_sites(model, [pattern])}
    statistics, _ = statistics_for(model, modules, NEEDS, list(ids.split(2)), seed=0)
    sites = find_sites(model.to(torch.bfloat16), [pattern])
    rows = Rows("compressors.configurations", options.json)
    setting = {"model": "smollm2, shuffled", "layer": options.layer, "matrices": len(sites), "method": "lq-lora"}
    for arm in options.arms.split(","):
        clock = time.process_time()
        card = METHODS.find("lq-lora")
        plan = make_plan(model, sites, card, statistics)
        for group in plan.groups:
            weight, known = group.sites[0].weight, statistics[group.name]
            said = {} if arm == "chosen" else {"rank": min(64, min(weight.shape) // 8)}
            said |= {"group": 64} if arm == "bits" else {}
            plan.add(group, card.taking(said).entry(weight, known))
        for bits in map(float, options.bits.split(",")):
            try:
                found = solved(plan, bits)
            except Refused as error:
                found = {"refused": str(error)}
            found["cpu_seconds"] = time.process_time() - clock
            rows.add({**setting, "arm": arm, "bits": bits}, found)
            print(f"{arm} at {bits:g}: {found}", flush=True)
    part = whole = 0.0
    for site in sites:
        known = statistics[site.name]
        metric = Metric(*(damped(known.get(need), 1e-6) for need in NEEDS))
        own = METHODS.find("nf4").entry(site.weight, known).build(4).structure
        scale = float(metric.left.sum()) if metric.left is not None else 1.0
        part += float(metric.error(site.weight.double() - own.to_dense().detach().double())) / scale
        whole += float(metric.error(site.weight.double())) / scale
    rows.add({**setting, "arm": "nf4", "bits": 4.25}, {"error": part / whole})
    print(f"nf4 at 4.25: {part / whole}")


if __name__ == "__main__":
    main()
