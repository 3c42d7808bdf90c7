"""Decoding and reading of a whole model compressed in several ways, in turns with the dense one, and what each costs.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m benchmarks.inference.whole_models --json FILE

The channels of smollm2 are put in another order first (`common/shuffled.py`), so that no arm meets the grid of its
file. The embedding, which is also the head, stays dense in every arm that does not name it. Beside eckart's arms stand
those of torchao, quanto and bitsandbytes where these are installed. Peak memory is that of a process of its own which
loads the directory and generates, over what it had after its imports. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.shuffled import shuffled
from benchmarks.inference import model_peers
from benchmarks.inference.model_peers import bytes_of
from eckart.jobs.calibration import text_of
from eckart.jobs.compress.trials import remembered
from eckart.jobs.evaluate.quality import evaluate
from eckart.jobs.evaluate.speed import speed
from eckart.models.modules import StructuredLinear
from eckart.models.transformers import load_model
from eckart.structures import RoundedInput
from eckart.texts.sequences import sequences

Make = Callable[[nn.Module], nn.Module]
CALIBRATION = {"samples": 16, "length": 256}
PEAK = r"""
import re, sys, torch, transformers, eckart
def peak(): return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
before = peak()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
with torch.inference_mode():
    model.generate(torch.arange(16)[None] + 100, max_new_tokens=16, min_new_tokens=16, do_sample=False)
print((peak() - before) / 1024)
"""


def compressed(method: str, **scheme: Any) -> Make:
    def make(model: nn.Module) -> nn.Module:
        eckart.compress(model, method, **scheme)
        return model

    return make


def rounded(model: nn.Module) -> nn.Module:
    """4 bits, and inputs rounded to 8."""
    compressed("rtn", bits=4, group=64)(model)
    for module in model.modules():
        if isinstance(module, StructuredLinear):
            module.structure = RoundedInput(module.structure)
    return model


def arms(ids: list[torch.Tensor]) -> dict[str, Make]:
    """eckart's, of which those that read texts read `ids`."""
    read = {"calibration": ids}
    linear = {"of": "linear-parameters", **read}
    return {
        "dense bf16": lambda model: model.to(torch.bfloat16),
        "rtn, 8 bits a row": compressed("rtn", bits=8, group=1 << 20, symmetric=True),
        "rtn, 4 bits, groups of 64": compressed("rtn", bits=4, group=64),
        "rtn, 4 bits, groups of 64, inputs of 8 bits": rounded,
        "gptq, 4 bits, groups of 64": compressed("gptq", bits=4, group=64, **read),
        "gptq, 3 bits, groups of 64": compressed("gptq", bits=3, group=64, **read),
        "nf4": compressed("nf4", bits=4),
        "codebook, 4 bits": compressed("codebook", bits=4),
        "llm-int8": compressed("llm-int8", bits=8, **read),
        "wanda, 50 %": compressed("wanda", percent=50, **read),
        "group-sparse, 50 %": compressed("group-sparse", percent=50, **read),
        "gqsa, 50 % in 4 bits": compressed("gqsa", percent=50, **read),
        "kfac, 80 % of the linear parameters": compressed("kfac", keep=0.8, **linear),
        "kfac, 60 % of the linear parameters": compressed("kfac", keep=0.6, **linear),
        "auto, a third of the bytes": compressed("auto", keep=0.334, embeddings=False, head=False, **read),
        "auto, a third of the bytes, embedding too": compressed("auto", keep=0.334, **read),
        "auto, a quarter of the bytes, embedding too": compressed("auto", keep=0.25, **read),
    }


def peak_of(model: nn.Module) -> float:
    """Megabytes that loading and generating take."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)  # type: ignore[operator]
        ran = subprocess.run([sys.executable, "-c", PEAK, directory], capture_output=True, text=True, check=True)
    return float(json.loads(ran.stdout.split()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=24)
    parser.add_argument("--samples", type=int, default=16, help="sequences of news that the quality is judged on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default="", help="only those whose name holds one of these words, with semicolons")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("inference.whole_models", options.json)
    dense, tokenizer = load_model("smollm2", dtype=torch.float32)[:2]
    shuffled(dense, options.seed)
    dense.eval()
    judge = sequences(tokenizer, text_of("news"), CALIBRATION["length"], options.samples, options.seed)
    read = sequences(tokenizer, text_of("wikipedia"), CALIBRATION["length"], CALIBRATION["samples"], options.seed)
    ours, theirs = arms(list(read.split(1))), model_peers.arms()
    reference = remembered(dense, judge)
    print(eckart.native())
    threads = torch.get_num_threads()
    for name, make in {"dense fp32": lambda model: model, **ours, **theirs}.items():
        what = {"model": "smollm2, shuffled", "arm": name, "threads": threads}
        if rows.get(what) is not None or not any(word in name for word in options.arms.split(";")):
            continue
        model = make(copy.deepcopy(dense)).eval()
        found = speed(
            {"dense": dense, name: model},
            prefill_tokens=options.prefill,
            decode_tokens=options.decode,
            repeats=options.repeats,
        )
        quality = evaluate(model, judge, reference=reference)
        row = {
            "decode": found["decode_tokens_per_second"][name],
            "decode_dense": found["decode_tokens_per_second"]["dense"],
            "decode_ratio": found["decode_ratio"],
            "prefill": found["prefill_tokens_per_second"][name],
            "prefill_ratio": found["prefill_ratio"],
            "bytes_ratio": bytes_of(model) / bytes_of(dense),
            "perplexity": quality.perplexity,
            "kl": quality.kl,
            "peak_mb": peak_of(model) if threads > 1 and name not in theirs else None,
        }
        rows.add(what, row)
        print(
            f"{name:<46}{row['bytes_ratio']:>7.3f} of the bytes, decoding {row['decode']:>7.1f} tokens/s "
            f"({row['decode_ratio']:.2f} of dense), reading {row['prefill']:>7.1f} ({row['prefill_ratio']:.2f}), "
            f"perplexity {row['perplexity']:.2f}, divergence {row['kl']:.4f}, peak {row['peak_mb'] or 0:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
