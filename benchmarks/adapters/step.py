"""CPU seconds that one training step of each adapter takes beside one layer, and what it trains there.

    python -m benchmarks.adapters.step [--out 1536] [--in 576] [--rank 16] [--tokens 512] [--repeats 9]

A step is forward and backward of the path alone, gradient of the input included, plus the adapter's own schedule and
regulariser; the least of the repeats, by `time.process_time` on one thread. The frozen layer itself is the first row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

import eckart
from benchmarks.common.rows import Rows, add_option
from eckart.adapters.contract import ADAPTERS
from eckart.structures import Scattered
from eckart.structures.scattered import slopes


def least(step: Callable[[], None], repeats: int) -> float:
    """CPU seconds of the fastest of some calls, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        step()
        seconds.append(time.process_time() - begin)
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"out": 1536, "in": 576, "rank": 16, "tokens": 512, "repeats": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    add_option(parser)
    options = vars(parser.parse_args())
    out, columns, rank, repeats = (options[name] for name in ("out", "in", "rank", "repeats"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(4, options["tokens"] // 4, columns, requires_grad=True)
    g = torch.randn(4, options["tokens"] // 4, out)
    layer = nn.Linear(columns, out, bias=False).requires_grad_(False)
    print(f"layer {out} x {columns}, {options['tokens']} tokens, rank {rank}, float32, torch {torch.__version__}")
    print(
        "| adapter | numbers that train | path, ms | schedule and regulariser, ms | start, s |\n|---|---|---|---|---|"
    )
    rows = Rows("adapters.step", options["json"])
    setting = {name: options[name] for name in ("out", "in", "rank", "tokens")}
    frozen = least(lambda: layer(x).backward(g), repeats)
    rows.add({**setting, "method": "the frozen layer"}, {"path_ms": 1e3 * frozen})
    print(f"| (the frozen layer) | 0 | {1e3 * frozen:.1f} | | |")
    for name, card in sorted(ADAPTERS.items()):
        if card.needs or card.task_gradient or name == "welore":
            continue
        net = nn.Sequential(nn.Linear(columns, out, bias=False))
        begin = time.process_time()
        adapter = eckart.adapt(net, name, rank=rank)
        start = time.process_time() - begin
        path = adapter.paths["0"]
        adapter.plan(1000)

        def forward_and_backward(path: nn.Module = path) -> None:
            path(x).backward(g)

        def others(adapter: eckart.Adapter = adapter) -> None:
            term = adapter.regulariser()
            if term.requires_grad:
                term.backward()
            adapter.step()

        trained = sum(p.numel() for p in adapter.trainable_parameters())
        path_seconds, other_seconds = least(forward_and_backward, repeats), least(others, repeats)
        found = {"numbers": trained, "path_ms": 1e3 * path_seconds, "start_s": start}
        if other_seconds > 1e-3:
            found["others_ms"] = 1e3 * other_seconds
        print(f"| {name} | {trained} | {1e3 * path_seconds:.1f} | {1e3 * other_seconds:.1f} | {start:.1f} |")
        for spectrum in path.modules():
            if isinstance(spectrum, Scattered):
                places = spectrum.places.long()
                spectrum.watch = lambda z, s=spectrum, p=places: slopes(z, s.values.detach(), p)  # type: ignore[misc]
                seconds = least(forward_and_backward, repeats)
                found["turn_ms"] = 1e3 * seconds
                print(f"| {name}, turn of places | {trained} | {1e3 * seconds:.1f} | | |")
        rows.add({**setting, "method": name}, found)


if __name__ == "__main__":
    main()
