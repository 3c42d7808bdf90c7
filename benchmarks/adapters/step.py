"""CPU seconds that one training step of each adapter takes beside one layer, what it keeps, and what it trains there.

    python -m benchmarks.adapters.step [--out 1536] [--in 576] [--rank 16] [--tokens 512] [--repeats 9] [--methods ...]

A step is forward and backward of the path alone, gradient of the input included, plus the adapter's own schedule and
regulariser; the least of the repeats, by `time.process_time` on one thread, the arms in turns. The frozen layer itself
is the first row. Kept are the bytes that the forward pass of the path saves for the backward one, input included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.adapters.held import kept_for_backward
from benchmarks.common.rows import Rows, add_option
from eckart.adapters.contract import ADAPTERS
from eckart.structures import Scattered
from eckart.structures.scattered import slopes

Step = Callable[[], object]


def least(steps: Mapping[str, Step], repeats: int) -> dict[str, float]:
    """CPU milliseconds of the fastest of some calls of each, in turns, after one that warms up."""
    found = dict.fromkeys(steps, float("inf"))
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            if turn:
                found[name] = min(found[name], 1e3 * (time.process_time() - begin))
    return found


def arms(names: list[str], x: Tensor, g: Tensor, rank: int) -> tuple[dict[str, Step], dict[str, dict[str, Any]]]:
    """What is timed, by method or by method and part with a `/` between them, and what else is known of the methods."""
    steps: dict[str, Step] = {}
    known: dict[str, dict[str, Any]] = {}
    for name in names:
        net = nn.Sequential(nn.Linear(x.shape[-1], g.shape[-1], bias=False))
        begin = time.process_time()
        adapter = eckart.adapt(net, name, rank=rank)
        start = time.process_time() - begin
        path = adapter.paths["0"]
        adapter.plan(1000)
        net(x)  # an adapter asks at its first step whether it was computed with

        def forward_and_backward(path: nn.Module = path) -> None:
            path(x).backward(g)

        def others(adapter: eckart.Adapter = adapter) -> None:
            term = adapter.regulariser()
            if term.requires_grad:
                term.backward()
            adapter.step()

        steps |= {name: forward_and_backward, f"{name}/others": others}
        kept = kept_for_backward(lambda path=path: path(x), path.parameters())  # type: ignore[misc]
        trained = sum(p.numel() for p in adapter.trainable_parameters())
        known[name] = {"numbers": trained, "start_s": start, "kept_megabytes": kept / 1e6}
        for spectrum in path.modules():
            if isinstance(spectrum, Scattered):
                places = spectrum.places.long()

                def turn(s: Scattered = spectrum, p: Tensor = places, path: nn.Module = path) -> None:
                    s.watch = lambda z: slopes(z, s.values.detach(), p)
                    path(x).backward(g)
                    s.watch = None

                steps[f"{name}/turn"] = turn
    return steps, known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"out": 1536, "in": 576, "rank": 16, "tokens": 512, "repeats": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--methods", help="with commas between them; all that look at no data by default")
    add_option(parser)
    options = vars(parser.parse_args())
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(4, options["tokens"] // 4, options["in"], requires_grad=True)
    g = torch.randn(4, options["tokens"] // 4, options["out"])
    layer = nn.Linear(options["in"], options["out"], bias=False).requires_grad_(False)
    blind = [name for name, card in ADAPTERS.items() if not card.reads_data and name != "welore"]
    names = options["methods"].split(",") if options["methods"] else blind
    steps, known = arms(names, x, g, options["rank"])
    frozen = "the frozen layer"
    times = least({frozen: lambda: layer(x).backward(g), **steps}, options["repeats"])
    rows = Rows("adapters.step", options["json"])
    setting = {name: options[name] for name in ("out", "in", "rank", "tokens")}
    rows.add({**setting, "method": frozen}, {"path_ms": times[frozen]})
    print(f"{setting}, float32, torch {torch.__version__}\n| {frozen} | 0 | {times[frozen]:.1f} |")
    for name in names:
        found = known[name] | {"path_ms": times[name]}
        if times[f"{name}/others"] > 1:
            found["others_ms"] = times[f"{name}/others"]
        if f"{name}/turn" in times:
            found["turn_ms"] = times[f"{name}/turn"]
        print(f"| {name} | " + " | ".join(f"{key} {value:.4g}" for key, value in found.items()) + " |")
        rows.add({**setting, "method": name}, found)


if __name__ == "__main__":
    main()
