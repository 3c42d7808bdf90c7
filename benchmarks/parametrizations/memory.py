"""What training takes of memory: dense, low rank and sltrain at equal bytes, each in a process of its own.

    python -m benchmarks.parametrizations.memory [--json FILE]

Four matrices of 2048 x 2048 with a function between them, three steps of AdamW on 64 vectors. What is stored of a
matrix takes at most a quarter of its bytes, places counted. Peak memory of the process over that of one that has
imported the same and made no model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch
from torch import nn

import eckart
from benchmarks.common.rows import Rows, add_option
from eckart.machine import peak_rss_bytes

SIDE, LAYERS, BATCH, KEEP = 2048, 4, 64, 0.25
ARMS = {
    "nothing": None,
    "dense": {},
    "low rank": {"method": "low-rank", "projected": False},
    "sltrain": {"method": "sltrain", "delta": 0.03},
    "sltrain, 5 %": {"method": "sltrain", "delta": 0.05},
}


def child(name: str) -> None:
    """Trains an arm and prints what it took."""
    torch.set_num_threads(1)
    told = ARMS[name]
    found = {"weights": 0, "state": 0, "macs": 0.0}
    if told is not None:
        model = nn.Sequential()
        for i in range(LAYERS):  # one after the other, so that no two dense ones are there at once
            layer = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False), nn.SiLU())
            if told:
                method, options = str(told["method"]), {key: value for key, value in told.items() if key != "method"}
                eckart.reparametrize(layer, method, seed=i, keep=KEEP, of="bytes", **options)
            model.append(layer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        x = torch.randn(BATCH, SIDE, generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        tensors = [*model.parameters(), *model.buffers()]
        found["weights"] = sum(t.numel() * t.element_size() for t in tensors)
        state = [t for of in optimizer.state.values() for t in of.values() if isinstance(t, torch.Tensor)]
        found["state"] = sum(t.numel() * t.element_size() for t in state)
    print(json.dumps({**found, "peak": peak_rss_bytes() or 0}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    torch.set_num_threads(1)
    rows = Rows("parametrizations.memory", options.json)
    nothing = 0
    for name in ARMS:
        command = [sys.executable, "-m", "benchmarks.parametrizations.memory", "--child", name]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        nothing = nothing or found["peak"]
        print(name, found, flush=True)
        if name != "nothing":
            rows.add(
                {"arm": name, "side": SIDE, "layers": LAYERS, "batch": BATCH, "keep": KEEP},
                {
                    "weights_mb": found["weights"] / 1e6,
                    "state_mb": found["state"] / 1e6,
                    "peak_mb": (found["peak"] - nothing) / 1e6,
                },
            )


if __name__ == "__main__":
    main()
