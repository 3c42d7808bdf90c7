"""Passes over a model in 16 bits, as PyTorch computes them and with its products in float32.

    OMP_NUM_THREADS=1 [ONEDNN_MAX_CPU_ISA=AVX2] python -m benchmarks.inference.half_passes [--json FILE]

smollm2 reads `SAMPLES` x `LENGTH` tokens, without and with gradients, the two arms in turns; processor seconds, the
least of three. The variable of oneDNN makes a processor with units for bfloat16 compute as one without.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch

from benchmarks.common.rows import Rows, add_option
from eckart.models.transformers import load_model
from eckart.ops.wide_products import WideProducts

SAMPLES, LENGTH = 1, 256
HALVES = frozenset({torch.bfloat16, torch.float16})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Rows("inference.half_passes", parser.parse_args().json)
    model, _ = load_model("smollm2")
    ids = torch.randint(model.config.vocab_size, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(0))
    instructions = os.environ.get("ONEDNN_MAX_CPU_ISA", "all that the processor has")

    def read() -> None:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)

    def learn() -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()

    for dtype in (torch.bfloat16, torch.float16):
        model.to(dtype)
        for task, run in {"a pass": read, "a pass and back": learn}.items():
            what = {"dtype": str(dtype).removeprefix("torch."), "instructions": instructions, "pass": task}
            if rows.get(what) is None:
                plain, wide = seconds(run)
                found = {"plain": plain, "wide": wide, "ratio": wide / plain, "tokens": ids.numel()}
                rows.add(what, found)
                print(what, found, flush=True)


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Processor seconds of both arms, the least of three in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for arm, slow in enumerate((frozenset(), HALVES)):
            start = time.process_time()
            with WideProducts(slow):
                run()
            found[arm].append(time.process_time() - start)
    return min(found[0]), min(found[1])


if __name__ == "__main__":
    main()
