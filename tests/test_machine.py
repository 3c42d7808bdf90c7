"""Fits on a real Dask cluster, a scheduler and two worker processes on the loopback; memory that was freed."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import Client, LocalCluster
from torch import Tensor

from eckart.cli.app import main
from eckart.compressors.contract import METHODS, Family
from eckart.jobs.compress.plan import make_plan
from eckart.machine import return_freed_memory
from eckart.models.sites import find_sites
from eckart.statistics import Statistics
from support.commands import SMALL, report_of
from support.tiny import tiny_llama


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    made = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None)
    with made as running:
        yield running


@pytest.mark.parametrize("method", [["kfac"], ["gptq", "--allocation", "exact", "--of", "bytes", "--keep", "0.45"]])
def test_the_same_bits_as_in_process(
    cluster: LocalCluster, llama_directory: Path, texts: tuple[str, str], tmp_path: Path, method: list[str]
) -> None:
    given = ["--calibration", texts[0], "--eval", "none", "--no-speed", *SMALL, "--method", *method]
    for name, more in (("alone", []), ("cluster", ["--scheduler", cluster.scheduler_address])):
        assert main(["compress", str(llama_directory), "--out", str(tmp_path / name), *given, *more]) == 0
    alone, spread = (tmp_path / name for name in ("alone", "cluster"))
    assert (alone / "model.safetensors").read_bytes() == (spread / "model.safetensors").read_bytes()
    assert report_of(alone)["sites"] == report_of(spread)["sites"]


def test_a_worker_that_is_killed_loses_nothing(cluster: LocalCluster) -> None:
    svd = METHODS["svd"]

    def slow(weight: Tensor, statistics: Statistics) -> Family:
        time.sleep(0.2)
        return svd.entry(weight, statistics)

    model = tiny_llama()
    sites = find_sites(model)
    plans = [make_plan(model, sites, method, {}) for method in (svd, replace(svd, entry=slow))]
    with Client(cluster.scheduler_address) as client:
        workers = list(client.run(os.getpid).values())
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done == 2:
            os.kill(workers[0], signal.SIGKILL)
            killed.append(total - done)

    plans[0].fit()
    plans[1].fit(cluster.scheduler_address, kill)
    assert killed == [len(sites) - 2]
    for group in plans[0].groups:
        (first,), (second,) = (plan.build(group, 4) for plan in plans)
        assert torch.equal(first.structure.to_dense(), second.structure.to_dense())
        assert plans[0].curves[group.name].errors == plans[1].curves[group.name].errors


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # One in two of many blocks is freed: nothing at the end of the heap is, and the allocator keeps the holes.
    blocks = [bytearray(b"x") * 60_000 for _ in range(1000)]
    del blocks[::2]
    before = resident()
    return_freed_memory()
    assert resident() < before - 10_000_000
    assert len(blocks) == 500
