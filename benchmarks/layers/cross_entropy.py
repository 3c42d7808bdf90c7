"""Memory and time of the loss of a language model, its logits made at once or in chunks, each in a process of its own.

    OMP_NUM_THREADS=1 python -m benchmarks.layers.cross_entropy --json benchmarks/results/layers.jsonl

One step is the loss and the gradients of x and of the head; the first of four is not timed, seconds are those of the
processor and the least of three. Peak memory is what the process has more than before the first step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common.rows import Rows, add_option
from eckart.layers import linear_cross_entropy
from eckart.machine import peak_rss_bytes
from eckart.structures.low_rank import low_rank

ARMS = (
    "all logits",
    "PyTorch, in chunks",
    "eckart",
    "eckart, factors of an eighth",
    "all logits, factors of an eighth",
)
SIZES = ((2048, 256, 49152, "float32"), (2048, 576, 49152, "float32"), (2048, 576, 49152, "bfloat16"))


def step(arm: str, x: torch.Tensor, head: Any, target: torch.Tensor) -> torch.Tensor:
    """The loss by one way, its gradients computed."""
    if arm.startswith("eckart"):
        loss = linear_cross_entropy(x, head, target)
    elif arm.startswith("all logits"):
        logits = F.linear(x, head) if isinstance(head, torch.Tensor) else head(x)
        loss = F.cross_entropy(logits.float(), target)
    else:
        loss = F.linear_cross_entropy(x, head, target, options=nn.LinearCrossEntropyOptions())
    loss.backward()
    return loss.detach()


def measured(arm: str, tokens: int, width: int, classes: int, dtype: str) -> dict[str, float]:
    """What an arm takes, in this process."""
    torch.manual_seed(0)
    kind: torch.dtype = getattr(torch, dtype)
    x = torch.randn(tokens, width).to(kind).requires_grad_()
    weight = (torch.randn(classes, width) / width**0.5).to(kind)
    target = torch.randint(0, classes, (tokens,))
    head: Any = nn.Parameter(weight)
    if "factors" in arm:
        rank = width // 8
        head = low_rank(weight[:, :rank].clone(), torch.randn(rank, width).to(kind) / rank**0.5)
    before, seconds, loss = peak_rss_bytes() or 0, [], torch.zeros(())
    for _ in range(4):
        x.grad = None
        for each in [head] if isinstance(head, nn.Parameter) else head.parameters():
            each.grad = None
        start = time.process_time()
        loss = step(arm, x, head, target)
        seconds.append(time.process_time() - start)
    return {"megabytes": ((peak_rss_bytes() or 0) - before) / 1e6, "cpu_seconds": min(seconds[1:]), "loss": float(loss)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", nargs=5, help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    if options.alone:
        arm, *numbers, dtype = options.alone
        print(json.dumps(measured(arm, *map(int, numbers), dtype)))
        return
    rows = Rows("layers.cross_entropy", options.json)
    for tokens, width, classes, dtype in SIZES:
        for arm in ARMS:
            if arm.startswith("PyTorch") and not hasattr(F, "linear_cross_entropy"):
                continue
            what = {"arm": arm, "tokens": tokens, "width": width, "classes": classes, "dtype": dtype}
            if rows.get(what):
                continue
            alone = [arm, str(tokens), str(width), str(classes), dtype]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.layers.cross_entropy", "--alone", *alone],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            print(what, found, flush=True)
            rows.add(what, found)


if __name__ == "__main__":
    main()
