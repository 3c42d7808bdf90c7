"""Work on a real Dask cluster, a scheduler and two worker processes on the loopback; memory that was freed."""

from __future__ import annotations

import copy
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from dask.sizeof import sizeof
from distributed import Client, LocalCluster
from torch import Tensor, nn

from eckart.cli.app import main
from eckart.compressors.contract import METHODS, Family
from eckart.errors import Refused
from eckart.jobs.cluster import Cluster, Parcel, both, changed, cluster_at
from eckart.jobs.compress.plan import make_plan
from eckart.jobs.compress.trials import judge_here
from eckart.machine import client_at, return_freed_memory
from eckart.models.places import replace as replace_matrix
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, collect
from eckart.statistics.batches import Batch
from eckart.statistics.collect import measure, statistics_of
from eckart.statistics.sample import Sample
from eckart.statistics.second_moment import SecondMoment
from eckart.statistics.tally import Tally
from eckart.structures import Quantized
from support.commands import SMALL, report_of
from support.tiny import tiny_llama


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    made = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None)
    with made as running:
        yield running


def test_the_same_as_in_process(
    cluster: LocalCluster, llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    given = ["--calibration", texts[0], "--eval", "none", "--no-speed", *SMALL, "--samples", "12", "--keep", "0.5"]
    for name, more in (("alone", []), ("cluster", ["--scheduler", cluster.scheduler_address])):
        # Statistics of a cache would be those of the first run.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ECKART_CACHE", str(tmp_path / f"cache-{name}"))
            assert main(["compress", str(llama_directory), "--out", str(tmp_path / name), *given, *more]) == 0
    alone, spread = (report_of(tmp_path / name) for name in ("alone", "cluster"))
    for one, other in zip(alone["sites"], spread["sites"], strict=True):
        assert one | {"error": None} == other | {"error": None}
        assert one["error"] == pytest.approx(other["error"], rel=1e-4)
    assert [t["kl"] for t in alone["trials"]] == pytest.approx([t["kl"] for t in spread["trials"]], rel=1e-3)


@pytest.fixture(scope="module")
def measured() -> tuple[nn.Module, dict[str, nn.Module], list[Batch], dict[str, Statistics]]:
    """A model, its matrices and its embedding, batches of several shapes, and the statistics of one process."""
    model = tiny_llama().eval()
    modules = {site.name: site.module for site in find_sites(model, embeddings=True)}
    draw = torch.Generator().manual_seed(3)
    shapes = [(2, 16)] * 3 + [(3, 12), (2, 16), (1, 40)]
    batches: list[Batch] = [torch.randint(model.config.vocab_size, shape, generator=draw) for shape in shapes]
    batches[3] = {"input_ids": batches[3]}
    return model, modules, batches, collect(model, modules, list(Need), batches, seed=5)


Measured = tuple[nn.Module, dict[str, nn.Module], list[Batch], dict[str, Statistics]]


def assert_same(found: dict[str, Statistics], wanted: dict[str, Statistics]) -> None:
    assert list(found) == list(wanted)
    for name, one in wanted.items():
        assert (one.tokens, one.uses, one.lookup) == (found[name].tokens, found[name].uses, found[name].lookup)
        for need in Need:
            ours, theirs = getattr(found[name], need.value), getattr(one, need.value)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("edges", [[0, 1, 6], [0, 4, 5, 6]])
def test_statistics_of_shares_join_to_those_of_all(measured: Measured, edges: list[int]) -> None:
    model, modules, batches, whole = measured
    parts = [measure(model, modules, list(Need), batches, seed=5, share=range(*each)) for each in pairwise(edges)]
    kept = copy.deepcopy(parts)
    assert_same(statistics_of(model, modules, reduce(both, parts)), whole)
    # A task that a worker does once more is given the same.
    again = (statistics_of(model, modules, reduce(both, each)) for each in (parts, kept))
    assert_same(*again)


def test_a_scheduler_knows_how_large_what_it_moves_is() -> None:
    moment = SecondMoment()
    moment.add(torch.ones(2, 300))
    assert 4 * 300 * 301 / 2 < sizeof(Tally({("", Need.INPUT_SECOND_MOMENT): moment})) < 4 * 300**2 + 1000
    moment.settle()
    assert 8 * 300 * 301 / 2 < sizeof(Tally({("", Need.INPUT_SECOND_MOMENT): moment})) < 8 * 300**2 + 1000
    assert 1000 < sizeof(Parcel("", bytes(1000))) < 1200


def test_samples_of_a_stream_join_to_that_of_all() -> None:
    rows = torch.arange(3001.0)[:, None]
    for edges in ([0, 1, 700, 3001], [0, 255, 257, 1500, 3001], [0, 2999, 3001]):
        samples = []
        for start, stop in pairwise(edges):
            samples.append(Sample())
            samples[-1].start_behind(start)
            for part in rows[start:stop].split(97):
                samples[-1].add(part)
        alone = Sample()
        alone.add(rows)
        for each in samples[1:]:
            samples[0].join(each)
        assert torch.equal(samples[0].result(1), alone.result(1))


def test_statistics_as_tasks_though_a_worker_is_killed(cluster: LocalCluster, measured: Measured) -> None:
    model, modules, batches, whole = measured
    told: list[tuple[int, int]] = []

    with cluster_at(cluster.scheduler_address) as workers, Client(cluster.scheduler_address) as client:
        assert workers is not None
        processes = list(client.run(os.getpid).values())

        def kill(done: int, total: int) -> None:
            if not told:
                os.kill(processes[0], signal.SIGKILL)
            told.append((done, total))

        assert_same(workers.collect(model, modules, list(Need), batches, seed=5, on_progress=kill), whole)
        halves = [run(model, modules, list(Need), batches, mixed_precision=True) for run in (workers.collect, collect)]
        assert_same(*halves)
        assert told[0][1] == len(batches)
        trial = share(model)
        for site in find_sites(trial)[:3]:
            replace_matrix(trial, site, Quantized.quantize(site.weight, 4, 16))
        assert list(changed(model, trial)) == [site.name for site in find_sites(model)[:3]]
        tokens = torch.cat([batch for batch in batches if isinstance(batch, Tensor) and len(batch) == 2])
        assert workers.divergence(model, tokens, trial) == pytest.approx(judge_here(model, tokens)(trial))


def test_a_scheduler_that_is_gone_is_named() -> None:
    def lose() -> None:
        made = LocalCluster(n_workers=1, processes=False, dashboard_address=None)
        with made, client_at(made.scheduler_address) as client:
            future = client.submit(time.sleep, 60)
            made.close()
            future.result()

    with pytest.raises(Refused, match=r"the Dask scheduler at 'inproc:.*' does not answer any more.*--resume"):
        lose()


def test_a_killed_scheduler_ends_a_run_that_resume_goes_on_with(
    llama_directory: Path,
    texts: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ECKART_CACHE", str(tmp_path / "cache"))
    words = ["compress", str(llama_directory), "--calibration", texts[0], "--eval", "none", "--no-speed", *SMALL]
    words += ["--samples", "12", "--keep", "0.5", "--out", str(tmp_path / "o")]
    spans, left = Cluster._spans, [0]

    def kill_then_share(self: Cluster, count: int) -> list[range]:
        if left[0] == 0:
            running[0].kill()  # SIGKILL, after the model was sent and before the workers are asked for anything
        left[0] -= 1
        return spans(self, count)

    monkeypatch.setattr(Cluster, "_spans", kill_then_share)
    # In the statistics; after them, in the first trial; and then there is none.
    for place, more in ((0, []), (1, ["--resume"])):
        left[0] = place
        with processes() as (address, running):
            assert main([*words, "--scheduler", address, *more]) == 2
        assert "start a scheduler and workers again, and go on with --resume" in capsys.readouterr().err
        assert bool(list((tmp_path / "cache").glob("*.safetensors"))) == (place != 0)
    assert main([*words, "--resume"]) == 0
    report = report_of(tmp_path / "o")
    assert report["calibration"]["passes"] == 0  # what was measured before the second death was kept
    assert len(report["trials"]) > 1


@contextmanager
def processes() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and a worker, each a process of its own, the scheduler first."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    address, quiet = f"tcp://127.0.0.1:{port}", ["--no-dashboard"]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, *quiet]
    worker = ["worker", address, "--nthreads", "1", "--death-timeout", "60", *quiet]
    started = [
        subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in (scheduler, worker)
    ]
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with Client(address, timeout=5) as client:
                    client.wait_for_workers(1, timeout=60)
                    break
            except OSError:
                assert time.monotonic() < deadline
        yield address, started
    finally:
        for each in started:
            each.terminate()
        for each in started:
            each.wait(60)


def test_a_scheduler_without_workers_is_named() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as made,
        pytest.raises(Refused, match="has no workers: start some"),
        cluster_at(made.scheduler_address),
    ):
        pass


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
