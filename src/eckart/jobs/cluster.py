"""Work on a Dask cluster: statistics, of which each worker takes its share of the batches, and trials of a model.

A model and its batches travel to every worker once. What a worker that dies was at, another one does again.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.evaluate.quality import TOGETHER, Reference, evaluate, remembered
from eckart.machine import client_at
from eckart.models.places import set_module
from eckart.models.sharing import share
from eckart.statistics import Need, Statistics
from eckart.statistics.batches import Batch
from eckart.statistics.collect import OnProgress, measure, statistics_of
from eckart.statistics.recorder import Mingled
from eckart.statistics.tally import Tally


class Cluster:
    """The workers of a Dask scheduler, for the work on one model.

    Args:
        client: connected.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._sent: dict[int, tuple[object, Any]] = {}

    def collect(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        needs: Sequence[Need],
        batches: Sequence[Batch],
        *,
        seed: int = 0,
        mixed_precision: bool = False,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Statistics]:
        """`eckart.statistics.collect` by all workers: the same to rounding.

        Sums travel from worker to worker two by two, and those of all batches from the last one here. `input_sample` is
        of the same tokens unless a model routes them.
        """
        how: dict[str, Any] = {"seed": seed, "mixed_precision": mixed_precision}
        try:
            tally = self._tally(model, modules, needs, batches, {"singly": False, **how}, on_progress)
        except Mingled:
            tally = self._tally(model, modules, needs, batches, {"singly": True, **how}, on_progress)
        return statistics_of(model, modules, tally)

    def _tally(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        needs: Sequence[Need],
        batches: Sequence[Batch],
        how: Mapping[str, Any],
        on_progress: OnProgress | None,
    ) -> Tally:
        paths = {id(module): path for path, module in model.named_modules()}
        asked = {name: paths[id(module)] for name, module in modules.items()}
        given = self._send(model), self._send(batches)
        spans = self._spans(len(batches))
        told = _Told(spans, on_progress)
        parts = []
        for span in spans:
            part = self._client.submit(measured_share, *given, asked, needs, span, how, pure=False)
            part.add_done_callback(partial(told, span))
            parts.append(part)
        while len(parts) > 1:
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [p[0] if len(p) == 1 else self._client.submit(both, *p, pure=False) for p in pairs]
        found: Tally = parts[0].result()
        return found

    def divergence(self, model: nn.Module, sequences: Tensor, trial: nn.Module) -> float:
        """Mean divergence of a model's next tokens from those of another that it was made of, nats.

        Args:
            model: dense.
            sequences: token ids (sequences, length).
            trial: a copy of the model in which modules were replaced; they alone travel.
        """
        given = self._send(model), self._send(sequences), self._scattered(changed(model, trial))
        spans = self._spans(len(sequences))
        parts = [self._client.submit(tried_share, *given, span, pure=False) for span in spans]
        found: list[float] = [part.result() for part in parts]
        return sum(each * len(span) for each, span in zip(found, spans, strict=True)) / len(sequences)

    def _spans(self, count: int) -> list[range]:
        """As many shares of some things as there are workers, in order."""
        workers = min(count, max(1, len(self._client.nthreads())))
        edges = [count * i // workers for i in range(workers + 1)]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def _send(self, what: object) -> Any:
        """What is on every worker from now on, sent when it is first asked for."""
        if id(what) not in self._sent:
            self._sent[id(what)] = what, self._scattered(what)  # kept, so that no other object gets its id
        return self._sent[id(what)][1]

    def _scattered(self, what: object) -> Any:
        try:
            from distributed.protocol.pickle import dumps

            parcel = Parcel(uuid.uuid4().hex, dumps(what))
        except Exception as error:  # whatever a part of a model does when it is copied
            raise Refused(
                f"a {type(what).__name__} cannot be sent to workers ({error}): leave out --scheduler"
            ) from error
        return self._client.scatter(parcel, broadcast=True, hash=False)


@contextmanager
def cluster_at(scheduler: str | None) -> Iterator[Cluster | None]:
    """The workers at the address of a Dask scheduler; None for None.

    Raises:
        Refused: no scheduler answers, or none any more; or it has no workers.
    """
    if scheduler is None:
        yield None
        return
    with client_at(scheduler) as client:
        if not client.nthreads():
            raise Refused(f"the Dask scheduler at {scheduler!r} has no workers: start some, `dask worker {scheduler}`")
        yield Cluster(client)


@dataclass
class _Told:
    """Tells of batches as shares of them are done."""

    spans: Sequence[range]
    on_progress: OnProgress | None
    done: int = 0

    def __call__(self, span: range, future: Any) -> None:
        if self.on_progress and future.status == "finished":
            self.done += len(span)
            self.on_progress(self.done, self.spans[-1].stop)


@dataclass
class Parcel:
    """Something on its way to workers, in the bytes that Dask makes of it, and its name there."""

    name: str
    body: bytes

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + len(self.body)


def changed(model: nn.Module, trial: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model, by name, that are others than in the one that it was made of; none inside another."""
    before = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, nn.Module] = {}
    for name, module in trial.named_modules(remove_duplicate=False):
        if any(name.startswith(f"{each}.") for each in found):
            continue
        there = before.get(name)
        if there is None or type(there) is not type(module) or _tensors(there) != _tensors(module):
            found[name] = module
    return found


def _tensors(module: nn.Module) -> list[int]:
    return [id(tensor) for tensor in chain(module._parameters.values(), module._buffers.values())]


# What runs on workers.

_ALONE = threading.RLock()
_HELD: dict[str, Any] = {}
"""What was sent to this process, by the name of its parcel."""
MOST = 4
"""Parcels that a process holds at most."""


def held(parcel: Parcel) -> Any:
    """What is in a parcel, opened once."""
    return _once(parcel.name, partial(_opened, parcel.body))


def _opened(body: bytes) -> Any:
    from distributed.protocol.pickle import loads

    return loads(body)


def _once(name: str, make: Callable[[], Any]) -> Any:
    if name not in _HELD:
        while len(_HELD) >= MOST:
            del _HELD[next(iter(_HELD))]
        _HELD[name] = make()
    return _HELD[name]


def measured_share(
    model: Parcel,
    batches: Parcel,
    asked: Mapping[str, str],
    needs: Sequence[Need],
    span: range,
    how: Mapping[str, Any],
) -> Tally:
    """What `measure` finds on a share of the batches, in modules by what they are called in the model."""
    with _ALONE:  # hooks of two shares on one model would measure each other's
        module = held(model)
        modules = {name: module.get_submodule(path) for name, path in asked.items()}
        return measure(module, modules, needs, held(batches), share=span, **how)


def both(first: Tally, second: Tally) -> Tally:
    """Both together; they stay as they are, in case that a worker asks for them again."""
    return copy.deepcopy(first).join(second)


def tried_share(model: Parcel, sequences: Parcel, changes: Parcel, span: range) -> float:
    """The divergence of a model with some modules replaced from that model, on a share of the sequences."""
    with _ALONE:
        dense, tokens = held(model), held(sequences)[span.start : span.stop]
        reference: Reference = _once(f"{model.name} {sequences.name}", lambda: remembered(dense, tokens))
        trial = share(dense)
        for name, module in _opened(changes.body).items():
            set_module(trial, name, module)
        found = evaluate(trial, tokens, reference, micro_batch=TOGETHER).kl
    assert found is not None
    return found
