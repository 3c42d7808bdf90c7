"""Matrices with few entries whose places move while they train: how many, where, and what is stored in the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from eckart.errors import Refused
from eckart.parametrizations.contract import (
    Layer,
    Schedule,
    Step,
    Structures,
    check_currency,
    check_share,
)
from eckart.structures.base import StructuredMatrix
from eckart.structures.by_task import ByTask
from eckart.structures.compose import Chain, Sum
from eckart.structures.masked import Masked
from eckart.structures.scattered import Scattered
from eckart.structures.sparse import Sparse

DISTRIBUTIONS = ("erk", "uniform")


def drawn(count: int, of: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers of 0..`of` - 1, ascending, all sets being as likely; int64, in O(count) memory."""
    if 2 * count > of:
        kept = torch.ones(of, dtype=torch.bool)
        kept[drawn(of - count, of, generator)] = False
        return kept.nonzero()[:, 0]
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        more = torch.randint(of, (count + count // 4 + 8,), generator=generator)
        found = torch.unique(torch.cat((found, more)))
    return found[torch.randperm(len(found), generator=generator)[:count]].sort().values


def density(layer: Layer, keep: float, distribution: str, of: str = "parameters") -> float:
    """The share of W that is stored, where `keep` of all matrices together are.

    Args:
        layer: W and the sizes of the others.
        keep: in (0, 1].
        of: one of `CURRENCIES`; of the bytes an entry takes its own and 2 for its place, or there is a bit for every
            place, whichever leaves more entries (padding of rows comes on top).
        distribution: `uniform` for the same share of each; `erk` for shares in proportion to (sum of the sizes) /
            (product of the sizes), those above 1 being 1 (Erdos-Renyi kernel).
    """
    check_share("keep", keep)
    if check_currency(of) == "bytes":
        size = layer.weight.element_size()
        keep = keep if keep == 1 else max(keep * size / (size + 2), keep - 1 / (8 * size))
    if distribution not in DISTRIBUTIONS:
        raise Refused(f"distribution={distribution!r} is none of {', '.join(DISTRIBUTIONS)}")
    if distribution == "uniform":
        return keep
    peers = layer.peers or (layer.dims,)
    whole: set[int] = set()
    while True:
        left = keep * sum(map(math.prod, peers)) - sum(math.prod(peers[i]) for i in whole)
        scale = left / max(1, sum(sum(each) for i, each in enumerate(peers) if i not in whole))
        beyond = {i for i, each in enumerate(peers) if scale * sum(each) > math.prod(each)}
        if beyond <= whole:
            return min(1.0, scale * sum(layer.dims) / math.prod(layer.dims)) if layer.dims in peers else keep
        whole |= beyond


def scattered(layer: Layer, share: float) -> Scattered:
    """The entries of W at drawn places, at least one."""
    out, columns = layer.shape
    return at(layer.weight, drawn(max(1, round(share * out * columns)), out * columns, layer.generator))


def at(weight: Tensor, flat: Tensor) -> Scattered:
    """The entries of W (out, in) at places that are counted row after row."""
    out, columns = weight.shape
    places = torch.stack((flat // columns, flat % columns)).to(weight.device)
    return Scattered(weight[tuple(places)].clone(), places, out=out, columns=columns)


def parts_of(structures: Structures) -> Iterator[tuple[str, Scattered]]:
    """All matrices of moving places, by name."""
    for name, structure in structures.items():
        for path, part in structure.named_modules():
            if isinstance(part, Scattered):
                yield f"{name}.{path}" if path else name, part


def stored(structure: StructuredMatrix) -> StructuredMatrix:
    """The same in the form that takes the fewest bytes, where places stay."""
    if isinstance(structure, Sum | Chain):
        return type(structure)(*map(stored, structure.operands()))
    if not isinstance(structure, Scattered):
        return structure
    weight = structure.to_dense().detach()
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept[tuple(structure.places.long())] = True
    forms = Masked.from_dense(weight, kept), _compressed_rows(weight, kept)
    return min(forms, key=lambda form: form.cost().bytes)


def _compressed_rows(weight: Tensor, kept: Tensor) -> Sparse:
    row, column = kept.nonzero().unbind(1)
    offsets = torch.searchsorted(row, torch.arange(len(weight) + 1, device=row.device))
    return Sparse(weight[kept], column, offsets, size=weight.shape[1])


class Slopes:
    """dL/dW of matrices in a step, zeros of W included: over all its backward passes, and over all processes.

    Where torch.distributed is initialised, its processes are taken to train one model on parts of a batch, so that the
    mean of their slopes is that of the batch, as the mean of gradients is that DistributedDataParallel forms. Then
    `taken` has to be called in all of them.

    Args:
        parts: what is watched, by name.
    """

    def __init__(self, parts: Mapping[str, Scattered | ByTask]) -> None:
        self._parts = parts
        self._seen: dict[str, Tensor] = {}

    def watch(self) -> None:
        """Looks at the backward passes from now on."""
        for name, part in self._parts.items():
            part.watch = partial(self._add, name)

    def _add(self, name: str, slope: Tensor) -> None:
        self._seen[name] = self._seen[name] + slope if name in self._seen else slope

    def taken(self) -> dict[str, Tensor]:
        """What was seen since `watch`, of the matrices that an input reached; the same in all processes."""
        for part in self._parts.values():
            part.watch = None
        seen, self._seen = self._seen, {}
        if not (self._parts and dist.is_available() and dist.is_initialized()):
            return seen
        first = next(iter(self._parts.values()))
        reached = torch.tensor([float(name in seen) for name in self._parts], device=first.device)
        dist.all_reduce(reached)
        found = {}
        for (name, part), anywhere in zip(self._parts.items(), reached.tolist(), strict=True):
            if anywhere:
                slope = torch.zeros(part.shape, dtype=part.dtype, device=part.device)
                slope = slope.copy_(seen[name]) if name in seen else slope
                dist.all_reduce(slope)
                found[name] = slope.div_(dist.get_world_size())
        return found


class Rewiring(Schedule):
    """Every so many steps the least entries of each matrix move to other places, where they begin at zero.

    A paper says which places with `grow`. Places are kept by the structures themselves.

    Args:
        drop: the share of entries that moves at first; it falls to zero along a cosine.
        every: steps between two moves.
        until: the part of all steps after which places stay.
    """

    watches = False
    """Whether `grow` needs the gradient of the whole matrix."""

    def __init__(
        self,
        structures: Structures,
        steps: int,
        generator: torch.Generator,
        *,
        drop: float = 0.3,
        every: int = 100,
        until: float = 0.75,
    ) -> None:
        super().__init__()
        check_share("drop", drop)
        check_share("until", until)
        if every < 1:
            raise Refused(f"every={every} must be at least 1")
        self.generator, self.drop, self.every, self.last = generator, drop, every, until * steps
        self.parts = dict(parts_of(structures))
        self.slopes: dict[str, Tensor] = {}
        self._watched = Slopes(self.parts)

    def due(self, step: Step) -> bool:
        """Whether entries move after this step."""
        return (step.done + 1) % self.every == 0 and step.done + 1 < self.last

    def share(self, step: Step) -> float:
        """Of the entries that move: a / 2 (1 + cos(pi t / T))."""
        return self.drop / 2 * (1 + math.cos(math.pi * (step.done + 1) / self.last))

    def before_step(self, step: Step) -> None:
        if self.watches and self.due(step):
            self._watched.watch()

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if not self.due(step):
            return
        self.slopes = self._watched.taken() if self.watches else {}
        for name, part in self.parts.items():
            if self.watches and name not in self.slopes:  # no input reached it
                continue
            flat = part.places[0].long() * part.shape[1] + part.places[1].long()
            free = part.shape[0] * part.shape[1] - len(flat)
            if (count := min(free, int(self.share(step) * len(flat)))) < 1:
                continue
            moves = self.least(name, part, count)
            stays = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
            stays[moves] = False
            grown = self.grow(name, part, flat[stays], count)
            part.places[:, moves] = torch.stack((grown // part.shape[1], grown % part.shape[1])).to(part.places)
            self.begin(part, moves)
            for leaf in part.parameters(recurse=False):
                step.forget(leaf, ~stays)
        self.slopes = {}

    def least(self, name: str, part: Scattered, count: int) -> Tensor:
        """Which entries move: those of least magnitude."""
        return part.values.abs().topk(count, largest=False).indices

    def begin(self, part: Scattered, moved: Tensor) -> None:
        """What entries begin with at their new places."""
        part.values[moved] = 0

    def grow(self, name: str, part: Scattered, taken: Tensor, count: int) -> Tensor:
        """Where entries go to: different places, none of those that are taken, counted row after row."""
        raise NotImplementedError


class AlongGradient(Rewiring):
    """Entries move to the zeros where |dL/dW| is largest."""

    watches = True

    def grow(self, name: str, part: Scattered, taken: Tensor, count: int) -> Tensor:
        size = self.slopes[name].abs().flatten()
        size[taken] = -1
        return size.topk(count).indices


def elsewhere(entries: int, taken: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Drawn places that are not taken, in O(taken) memory: the k-th free one lies behind the taken ones before it."""
    rank = drawn(count, entries - len(taken), generator)
    before = taken.sort().values.cpu()
    return (rank + torch.searchsorted(before - torch.arange(len(before)), rank, right=True)).to(taken.device)
