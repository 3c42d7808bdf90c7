"""The whole job on a device beside the CPU, and the products of structures there beside the dense one.

    python -m benchmarks.models.device [--device auto] [--model smollm2] [--method NAME ...] [--size N] [--json FILE]

For each method: the model is compressed to 60 % of its bytes on the CPU and on the device, judged, written and read
back; seconds, divergences from the dense model, and how far the outputs of both are apart. Then microseconds a product
of a matrix (N, N) in float16 (float32 on a CPU) with 1, 16 and 256 tokens. Nothing of it was run on a GPU yet.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.models.engines import TEXT
from eckart.jobs.evaluate.quality import evaluate
from eckart.machine import device_named
from eckart.models import transformers as hf
from eckart.models.sharing import share
from eckart.progress import silent
from eckart.structures import Dense, Quantized, StructuredMatrix, low_rank

METHODS = ("svd", "kfac", "gptq", "wanda")
TOKENS = (1, 16, 256)
KINDS: dict[str, Callable[[Tensor], StructuredMatrix]] = {
    "dense": Dense,
    "rank N / 4": lambda w: low_rank(w[:, : len(w) // 4].clone(), w[: len(w) // 4].clone()),
    "8 bits": lambda w: Quantized.quantize(w, 8, 128, symmetric=True),
    "4 bits": lambda w: Quantized.quantize(w, 4, 128, symmetric=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--method", action="append", metavar="NAME")
    parser.add_argument("--size", type=int, default=4096, metavar="N")
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("models.device", arguments.json)
    device = device_named(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    for method in arguments.method or METHODS:
        what = {"device": name, "model": arguments.model, "method": method}
        if rows.get(what) is None:
            rows.add(what, beside_the_cpu(arguments.model, method, device))
            print(what, rows.get(what), flush=True)
    for kind, make in KINDS.items():
        what = {"device": name, "matrix": kind, "size": arguments.size}
        if rows.get(what) is None:
            rows.add(what, products(make, arguments.size, device))
            print(what, rows.get(what), flush=True)


def beside_the_cpu(model: str, method: str, device: torch.device) -> dict[str, Any]:
    """Seconds and quality of both, and the largest difference of their logits by the largest logit."""
    here, there = (job(model, method, each) for each in (torch.device("cpu"), device))
    outputs = here.pop("logits"), there.pop("logits")
    apart = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    return {"cpu": here, "device": there, "apart": apart}


def job(model: str, method: str, device: torch.device) -> dict[str, Any]:
    """Compresses, judges, writes and reads back."""
    loaded = hf.load(model, device=str(device))
    tokens = torch.tensor([loaded.tokenizer(TEXT)["input_ids"]])
    tokens = tokens[:, : tokens.shape[1] // 4 * 4].view(4, -1)
    dense = share(loaded.model)
    start = seconds(device)
    eckart.compress(loaded.model, method, keep=0.6, calibration=tokens, progress=silent)
    took = seconds(device) - start
    found = evaluate(loaded.model, tokens, dense)
    with torch.no_grad(), tempfile.TemporaryDirectory() as place:
        logits = loaded.model(tokens.to(device)).logits.float().cpu()
        loaded.write(Path(place) / "written")
        again = hf.load(str(Path(place) / "written"), device=str(device)).model(tokens.to(device)).logits.float().cpu()
    return {"seconds": took, "kl": found.kl, "read back": float((again - logits).abs().max()), "logits": logits}


@torch.inference_mode()
def products(make: Callable[[Tensor], StructuredMatrix], size: int, device: torch.device) -> dict[str, float]:
    """Median microseconds of a product, by tokens."""
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    draw = torch.Generator().manual_seed(0)
    matrix = make(torch.randn(size, size, generator=draw) / size**0.5).to(device, dtype)
    found = {}
    for tokens in TOKENS:
        x = torch.randn(tokens, size, generator=draw).to(device, dtype)
        taken = []
        for _ in range(30):
            start = seconds(device)
            matrix(x)
            taken.append(seconds(device) - start)
        found[f"{tokens} tokens"] = 1e6 * statistics.median(taken[5:])
    return found


def seconds(device: torch.device) -> float:
    """The time, when everything that was asked of a device is done."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
