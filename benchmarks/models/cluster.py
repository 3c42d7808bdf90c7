"""Statistics as tasks of a Dask cluster, beside those of one process: what moves, and who computes for how long.

    python -m benchmarks.models.cluster [--workers N ...] [--statistics NAME] [--json FILE]

smollm2, all of its 210 matrices: inputs alone of 64 sequences of 256 tokens, as for `gptq`, and gradients too of 16, as
for `kfac`. Workers are processes of this machine with one thread each. 0 workers are the process itself.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from distributed import Client, LocalCluster
from torch import nn

from benchmarks.common.rows import Rows, add_option
from eckart.jobs.cluster import cluster_at
from eckart.models import transformers as hf
from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, collect

NEEDS = {
    "inputs": (64, (Need.INPUT_SECOND_MOMENT,)),
    "inputs and gradients": (16, (Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT)),
}
"""How many sequences, and what is measured on them."""
LENGTH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, action="append", metavar="N")
    parser.add_argument("--statistics", choices=list(NEEDS))
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("models.cluster", arguments.json)
    model = hf.load("smollm2").model.eval()
    modules = {site.name: site.module for site in find_sites(model)}
    for measured, (sequences, needs) in NEEDS.items():
        if arguments.statistics not in (None, measured):
            continue
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(model.config.vocab_size, (sequences, LENGTH), generator=draw)
        batches = list(tokens.split(4))
        start = time.process_time()
        alone = collect(model, modules, needs, batches)
        seconds = time.process_time() - start
        for workers in arguments.workers or (0, 1, 2, 4):
            what = {"model": "smollm2", "tokens": tokens.numel(), "statistics": measured, "workers": workers}
            if rows.get(what) is None:
                found = spread(model, modules, needs, batches, workers, alone) if workers else {"busiest": seconds}
                rows.add(what, found)
                print(what, found, flush=True)


def spread(
    model: nn.Module,
    modules: dict[str, nn.Module],
    needs: tuple[Need, ...],
    batches: list[Any],
    workers: int,
    alone: dict[str, Statistics],
) -> dict[str, float]:
    """A pass by workers: processor seconds, bytes that left workers, and how far the statistics are from one process.

    What is sent to the workers first is counted apart, for it is sent once for statistics and trials.
    """
    options = {"threads_per_worker": 1, "processes": True, "host": "127.0.0.1", "dashboard_address": None}
    with (
        LocalCluster(n_workers=workers, **options) as made,
        cluster_at(made.scheduler_address) as cluster,
        Client(made.scheduler_address) as client,
    ):
        assert cluster is not None
        client.run(_ready)
        cluster._send(model)
        before, here, began = client.run(_state), time.process_time(), time.perf_counter()
        found = cluster.collect(model, modules, needs, batches)
        wall, here = time.perf_counter() - began, time.process_time() - here
        after = client.run(_state)
    seconds = [after[each][0] - before[each][0] for each in after]
    apart = max(
        float((getattr(found[name], need.value) - value).abs().max() / value.abs().max())
        for name, one in alone.items()
        for need in needs
        if (value := getattr(one, need.value)) is not None
    )
    return {
        "busiest": max(seconds),
        "of all workers": sum(seconds),
        "of the client": here,
        "wall": wall,
        "model bytes": sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        "bytes": sum(after[each][1] - before[each][1] for each in after),
        "apart": apart,
    }


def _ready() -> None:
    import transformers  # noqa: F401

    import eckart.jobs.cluster  # noqa: F401


def _state(dask_worker: Any) -> tuple[float, int]:
    return time.process_time(), dask_worker.transfer_outgoing_bytes_total


if __name__ == "__main__":
    main()
