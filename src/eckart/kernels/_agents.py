"""Those who hold the parts of the data, in this process or each on a worker of Dask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.files.tensors import read_safetensors, write_safetensors

Work = Callable[..., Any]
"""Of a part and an agent's arguments."""


class Here:
    """Parts that are all in this process.

    Args:
        parts: one an agent.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)

    def __call__(self, work: Work, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each agent's work gives, of its part and its arguments."""
        return [work(part, *own) for part, own in zip(self.parts, arguments, strict=True)]

    def keep(self, work: Work, *arguments: Any) -> None:
        """Puts what work gives, of the same arguments for all, in the place of each part."""
        self.parts = self(work, [arguments] * len(self.parts))


class OnWorkers:
    """Parts that each lie on one worker of Dask, and stay there.

    Args:
        client: of `distributed`.
        parts: one an agent; agent i lives on worker i, in the order of their addresses, and starts over where there
            are fewer workers.
    """

    def __init__(self, client: Any, parts: Sequence[Any]) -> None:
        if not all(callable(getattr(client, name, None)) for name in ("nthreads", "scatter", "submit", "gather")):
            raise Refused(f"client={client!r:.80} is no client of Dask: hand in a distributed.Client, or None")
        workers = sorted(client.nthreads())
        if not workers:
            raise Refused("the client has no workers: start them first")
        self.client = client
        self.homes = [workers[i % len(workers)] for i in range(len(parts))]
        self.parts = []
        for part, home in zip(parts, self.homes, strict=True):
            try:
                self.parts.append(client.scatter(part, workers=[home], broadcast=False, hash=False))
            except KeyError:
                # What the scheduler says of a worker that has gone since it was asked which there are.
                self._all_there()
                raise

    def __call__(self, work: Work, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each agent's work gives.

        Raises:
            Refused: a worker is gone, and with it the part that only it had.
        """
        from distributed import CancelledError, KilledWorker, wait

        self._all_there()
        futures = self._submitted(work, arguments)
        while True:
            try:
                wait(futures, timeout=1)
                return list(self.client.gather(futures))
            except TimeoutError:
                self._all_there()
            except (CancelledError, KilledWorker):
                self._all_there()
                raise

    def keep(self, work: Work, *arguments: Any) -> None:
        """Puts what work gives in the place of each part, where the part was."""
        self.parts = self._submitted(work, [arguments] * len(self.parts))

    def _submitted(self, work: Work, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [
            self.client.submit(work, part, *own, workers=[home], allow_other_workers=False, pure=False, retries=0)
            for part, own, home in zip(self.parts, arguments, self.homes, strict=True)
        ]

    def _all_there(self) -> None:
        there = self.client.nthreads()
        for agent, home in enumerate(self.homes):
            if home not in there:
                raise Refused(
                    f"agent {agent} on worker {home} is lost, and its part of the data with it: start a worker, and "
                    "fit again with the same checkpoint to go on from the last round"
                )


@dataclass
class Traffic:
    """Calls agents, and counts the bytes of the numbers that go to them and come back."""

    agents: Here | OnWorkers
    sent: int = 0

    def __call__(self, work: Work, arguments: list[tuple[Any, ...]]) -> list[Any]:
        found = self.agents(work, arguments)
        self.sent += size(arguments) + size(found)
        return found


def size(sent: Any) -> int:
    """Bytes of arrays and numbers, in tuples, lists and dataclasses."""
    if is_dataclass(sent):
        return sum(size(value) for value in vars(sent).values())
    if isinstance(sent, tuple | list):
        return sum(map(size, sent))
    return sent.nbytes if isinstance(sent, np.ndarray) else 8


def fingerprint(*parts: Any) -> str:
    """A text that is another one where an array, a number or a word is another one."""
    digest = hashlib.sha256()
    for part in parts:
        array = isinstance(part, np.ndarray)
        digest.update(f"{part.shape} {part.dtype}".encode() if array else repr(part).encode())
        digest.update(np.ascontiguousarray(part).tobytes() if array else b";")
    return digest.hexdigest()


def resumed(path: str | None, state: dict[str, Dense], of: str) -> tuple[int, list[float]]:
    """Puts into a state what a file has of it, where there is one; the round, and the history until then.

    Args:
        path: of the file; None for none.
        state: arrays, which are replaced.
        of: the `fingerprint` of the data and of the options on which a round depends.

    Raises:
        Refused: the file is of another fingerprint, or of arrays of other names or shapes.
    """
    if path is None or not Path(path).exists():
        return 0, []
    tensors, header = read_safetensors(Path(path))
    same = {name: tuple(value.shape) for name, value in tensors.items()} == {k: v.shape for k, v in state.items()}
    if not same or header.get("of") != of:
        raise Refused(
            f"{path} is of another fit: of other X or y, of other options, or of frequencies that were drawn anew "
            "(random_state=None); take another file, or remove this one"
        )
    state.update({name: value.numpy().copy() for name, value in tensors.items()})
    told = json.loads(header["rounds"])
    return told["round"], told["history"]


def written(path: str | None, state: dict[str, Dense], at: int, history: list[float], of: str) -> None:
    """Writes a state to a file, whole or not at all; nothing where there is no path."""
    if path is not None:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
        write_safetensors(tensors, Path(path), {"rounds": json.dumps({"round": at, "history": history}), "of": of})
