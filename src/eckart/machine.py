"""The machine: where fits run, the memory there is, and the most that was used."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that models can be put on."""


def device_named(name: str) -> torch.device:
    """A device that is there; `auto` is the first kind besides the CPU that is, or else the CPU.

    Args:
        name: `auto`, or one of `DEVICES`, with a number behind a colon where there are several: `cuda:1`.

    Raises:
        Refused: no such kind, or none there.
    """
    there = [kind for kind in DEVICES[1:] if getattr(torch, kind).is_available()] + ["cpu"]
    if name == "auto":
        return torch.device(there[0])
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise Refused(f"device={name!r} is none of auto, {', '.join(DEVICES)}, nor one of these with a number: cuda:1")
    count = getattr(torch, kind).device_count() if kind in there and number else 1
    if kind not in there or int(number or 0) >= max(1, count):
        raise Refused(f"device={name!r} is not there: PyTorch {torch.__version__} finds {', '.join(there)} here")
    return torch.device(name)


def memory_on(device: torch.device) -> float:
    """Bytes that are free on a device; infinite where it does not tell, and for the CPU, see `memory_available`."""
    own: Any = getattr(torch, device.type, None)
    return float(own.mem_get_info(device)[0]) if hasattr(own, "mem_get_info") else math.inf


@cache
def has_float64(kind: str) -> bool:
    """Whether devices of a kind, such as `cuda` or `mps`, compute in float64."""
    try:
        torch.zeros(1, dtype=torch.float64, device=kind)
    except (TypeError, RuntimeError):
        return False
    return True


def wide(x: Tensor) -> Tensor:
    """In float64, or in float32 on a device that has no more."""
    return x.to(torch.float64 if has_float64(x.device.type) else torch.float32)


def exact_sum(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension, in float64, in the memory of the CPU."""
    here = x if has_float64(x.device.type) else x.cpu()
    return here.sum(dim, dtype=torch.float64).cpu()


@contextmanager
def executor_at(scheduler: str | None) -> Iterator[Executor]:
    """An executor that works at the address of a Dask scheduler; in threads for None."""
    if scheduler is None:
        threads = torch.get_num_threads()
        # One matrix a thread: small decompositions do not speed up inside.
        pool = ThreadPoolExecutor(max(1, threads), initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
            return_freed_memory()
        return
    with client_at(scheduler) as client:
        yield client.get_executor()


@contextmanager
def client_at(scheduler: str) -> Iterator[Any]:
    """A client of the Dask scheduler at an address.

    Raises:
        Refused: Dask is missing, no scheduler answers, or none does any more, or tasks killed one worker after another.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise Refused("--scheduler needs Dask: pip install 'eckart[dist]'") from error
    try:
        if not scheduler:
            raise Refused("an address is needed")  # Dask would start a cluster of its own
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError, AssertionError) as error:  # Dask asserts that an address is of a kind it knows
        raise Refused(
            f"no Dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler` and give its "
            "address, such as tcp://localhost:8786"
        ) from error
    with client:
        try:
            yield client
        except (CancelledError, CommClosedError, TimeoutError) as error:
            raise Refused(
                f"the Dask scheduler at {scheduler!r} does not answer any more, or has lost all its workers "
                f"({type(error).__name__}): start a scheduler and workers again, and go on with --resume"
            ) from error
        except KilledWorker as error:
            raise Refused(f"workers of {scheduler!r} died one after the other, for want of memory? {error}") from error


def check_scheduler(address: str) -> None:
    """Raises Refused where Dask is not installed, or no scheduler answers."""
    with executor_at(address):
        pass


def memory_available() -> int:
    """Bytes of memory that can be used without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 2


def return_freed_memory() -> None:
    """Hands what was freed back to the system; glibc keeps it, by thread, when the threads are long gone."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        if trim is not None:
            trim(ctypes.c_size_t(0))


def peak_rss_bytes() -> int | None:
    """The most memory this process has held resident so far, bytes; None on Windows, which does not count it."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, Linux in KiB.
    return peak if sys.platform == "darwin" else peak * 1024
