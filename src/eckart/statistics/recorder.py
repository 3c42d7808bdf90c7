"""Hooks on modules that hand what passes through them to the accumulators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from eckart.errors import Refused
from eckart.layouts.look_ups import scale_of
from eckart.layouts.patches import Geometry, geometry_of
from eckart.machine import exact_sum
from eckart.statistics.accumulators import GRADIENT_NEEDS, OF_FISHER, OF_INPUTS, OF_PAIRS, Accumulator
from eckart.statistics.batches import Batch, samples_in
from eckart.statistics.needs import Need, Statistics
from eckart.statistics.patches import patches_of, positions, products
from eckart.statistics.precision import exact
from eckart.statistics.sample import Sample
from eckart.statistics.second_moment import SecondMoment
from eckart.statistics.sums import Sum
from eckart.statistics.tally import Tally, shared_at_times

LOOKED_UP = 128
"""Look-ups at once of which it is written out which rows they are of."""
BATCHES_IN_FLOAT32 = 16
"""Products of so many batches are summed in float32 before they are added in float64."""


class Mingled(Exception):
    """A module was given rows of several samples of which it is not known which belong to which."""


class Recorder:
    """Fills accumulators, a few batches in float32 at a time.

    Every row that a module is given counts: batches have no padding, see `without_padding`.

    Args:
        modules: what is measured, by name.
        needs: what is kept of each.
        also_looked_up: see there, in `ties`; of their gradients only the squares are kept, and always.

    Attributes:
        gradients: whether they are measured.
        recording_inputs: whether what modules are given counts; not while blocks are computed anew.
        tally: what was measured so far.
        passed: tokens before the first batch, by name of the module; of a share of all batches.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], needs: frozenset[Need], also_looked_up: frozenset[str] = frozenset()
    ) -> None:
        self.modules = modules
        self.needs = needs
        self._also_looked_up = also_looked_up
        looked_up = {name for name, module in modules.items() if isinstance(module, nn.Embedding)} | also_looked_up
        self.gradients = bool(needs & GRADIENT_NEEDS) or not looked_up.isdisjoint(modules)
        self.recording_inputs = False
        self.tally = Tally()
        self.passed: Mapping[str, int] = {}
        self._batches = 0
        self._here = 1
        self._longest: int | None = None
        self._calls: dict[str, int] = {}
        self._pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._seen: dict[tuple[int, Geometry | None], tuple[Tensor, str]] = {}

    def start(self, batch: Batch, longest: int | None = None) -> None:
        """Before the model is called on a batch, whose sequences may not be made longer than that many tokens."""
        self._here = samples_in(batch)
        self._longest = longest
        self._calls.clear()
        self.recording_inputs = True

    def finish(self) -> None:
        """After the model was called on a batch, and back through it where gradients are measured."""
        for name, pairs in self._pairs.items():
            self._add_samples(name, *(torch.cat(parts, 1) for parts in zip(*pairs, strict=True)))
        self._pairs.clear()
        self._seen.clear()
        self.tally.samples += self._here
        self._batches += 1
        if self._batches % BATCHES_IN_FLOAT32 == 0:
            self.tally.settle()

    def _accumulator(self, name: str, need: Need, make: Callable[[], Accumulator]) -> Accumulator:
        kept, key = self.tally.kept, (name, need)
        if key not in kept:
            kept[key] = made = make()
            if isinstance(made, Sample):
                made.start_behind(self.passed.get(name, 0))
        return kept[key]

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        """What a module calls with its inputs and its output."""

        @exact
        def forward_hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
            x: Tensor = arguments[0]
            recorded = self.recording_inputs
            if recorded:
                self._check_samples(module, x)
                self._calls[name] = self._calls.get(name, 0) + 1
            if recorded and isinstance(module, nn.Embedding):
                self._count_rows(name, module, x)
            elif recorded:
                self._add_input(name, x, geometry_of(module))
            if not self.gradients:
                return None
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            # What follows may work in place, which no leaf of the graph allows and which takes the hook off a view.
            output = output.clone()
            if recorded:
                watch: Any = output
                watch.register_hook(exact(self._gradient_hook(name, module, x)))
            return output

        return forward_hook

    def _gradient_hook(self, name: str, module: nn.Module, x: Tensor) -> Callable[[Tensor], None]:
        if isinstance(module, nn.Embedding):
            scale = scale_of(module)
            return lambda gradient: self._add_row_gradient(name, module, x, gradient.detach().float() * scale)
        # What the hook holds lives until the backward pass.
        held = x if self.needs & (OF_FISHER.keys() | OF_PAIRS.keys()) else None
        geometry = geometry_of(module)
        return lambda gradient: self._add_gradient(name, held, gradient.detach().float(), geometry)

    def _check_samples(self, module: nn.Module, x: Tensor) -> None:
        """Raises Mingled where x does not have the samples of the batch in its first dimension, and has to."""
        geometry = geometry_of(module)
        if self._longest is not None and x.ndim == 3 and x.shape[1] > self._longest:
            raise Refused(
                f"the model pads sequences of {self._longest} tokens to {x.shape[1]} by itself, and padding is no "
                "data: give sequences of a length that it does not pad"
            )
        single = geometry is not None and x.ndim == (2 if geometry.line else 3)
        if (x.ndim == 1 and not isinstance(module, nn.Embedding)) or single:
            self._here = 1  # one vector or one image, without a dimension of samples
        if self._here == 1 or len(x) == self._here:
            return
        once = self.gradients and x.ndim > 2 and len(x) == 1
        if once or isinstance(module, nn.Embedding) or self.needs & OF_FISHER.keys():
            raise Mingled

    def _by_sample(self, x: Tensor) -> Tensor:
        """x (..., n) as (samples of the batch, tokens, n)."""
        return x.reshape(self._here, x[..., 0].numel() // self._here, x.shape[-1])

    def _pieces(self, x: Tensor, geometry: Geometry | None) -> Iterator[Tensor]:
        """Inputs as (tokens, in) in float32; patches piece by piece."""
        if geometry is None:
            yield _rows(x)
        else:
            yield from (patches.flatten(0, 1) for patches in patches_of(x, geometry))

    def _add_input(self, name: str, x: Tensor, geometry: Geometry | None) -> None:
        found = self._seen.setdefault((id(x), geometry), (x, name))[1]
        leader = self.tally.leader.setdefault(name, found)
        tokens = positions(x, geometry) if geometry else x[..., 0].numel()
        self._count(self.tally.tokens, name, tokens)
        if geometry:
            self._count(self.tally.images, name, len(geometry.images(x)))
        if leader != name:
            if found != leader:
                raise shared_at_times(name, leader)
            return
        kept = [self._accumulator(name, need, make) for need, make in OF_INPUTS.items() if need in self.needs]
        if not kept:
            return
        for rows in self._pieces(x, geometry):
            for accumulator in kept:
                accumulator.add(rows)

    def _count(self, counts: dict[str, int], name: str, more: int) -> None:
        counts[name] = counts.get(name, 0) + more

    def _count_rows(self, name: str, module: nn.Embedding, ids: Tensor) -> None:
        self.tally.leader[name] = name
        self._count(self.tally.tokens, name, ids.numel())
        counts = torch.bincount(ids.flatten(), minlength=module.num_embeddings)
        self._accumulator(name, Need.GRADIENT_SECOND_MOMENT, Sum).add(counts)

    def _add_row_gradient(self, name: str, module: nn.Embedding, ids: Tensor, gradient: Tensor) -> None:
        g = _rows(gradient)
        self._accumulator(name, Need.INPUT_SECOND_MOMENT, SecondMoment).add(g)
        if Need.INPUT_MEAN in self.needs:
            self._accumulator(name, Need.INPUT_MEAN, Sum).add(g.new_zeros(g.shape[1]))
        if Need.INPUT_ABS_MEAN in self.needs:
            self._accumulator(name, Need.INPUT_ABS_MEAN, Sum).add(exact_sum(g.abs(), 0))
        for need, make in OF_PAIRS.items():
            if need in self.needs:
                kept = self._accumulator(name, need, make)
                for index, each in zip(torch.split(ids.flatten(), LOOKED_UP), torch.split(g, LOOKED_UP), strict=True):
                    kept.add(torch.cat([each, one_hot(index.long(), module.num_embeddings).to(each)], 1))
        if self.needs & OF_FISHER.keys():
            self._add_pairs(name, [(ids.reshape(self._here, -1), self._by_sample(gradient))])

    def _add_gradient(self, name: str, x: Tensor | None, gradient: Tensor, geometry: Geometry | None) -> None:
        if name in self._also_looked_up:  # the moment of a table is as long as it has rows
            squares = exact_sum(_rows(gradient).square(), 0)
            self._accumulator(name, Need.GRADIENT_SECOND_MOMENT, Sum).add(squares)
        elif Need.GRADIENT_SECOND_MOMENT in self.needs:
            rows = _rows(gradient) if geometry is None else _rows(geometry.images(gradient).movedim(1, -1))
            self._accumulator(name, Need.GRADIENT_SECOND_MOMENT, SecondMoment).add(rows)
        if x is None:
            return
        for need, make in OF_PAIRS.items():
            if need in self.needs:
                kept = self._accumulator(name, need, make)
                for pair in products(x, gradient, geometry) if geometry else [(x, gradient)]:
                    kept.add(torch.cat([_rows(side) for side in pair], 1))
        if not self.needs & OF_FISHER.keys():
            return
        if geometry is None:
            self._add_pairs(name, [(self._by_sample(x.detach().float()), self._by_sample(gradient))])
        else:
            self._add_pairs(name, products(x, gradient, geometry))

    def _add_pairs(self, name: str, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Adds inputs and gradients of some samples; those of a module that was called again wait for the others."""
        if self._calls.get(name, 1) == 1:
            for inputs, gradients in pairs:
                self._add_samples(name, inputs, gradients)
            return
        whole = [torch.cat(parts) for parts in zip(*pairs, strict=True)]
        self._pairs.setdefault(name, []).append((self._merged(whole[0]), self._merged(whole[1])))

    def _merged(self, x: Tensor) -> Tensor:
        """x (n, tokens, ...) as (samples of the batch, ...): several of n may be of one sample."""
        return x.reshape(self._here, -1, *x.shape[2:])

    def _add_samples(self, name: str, inputs: Tensor, gradients: Tensor) -> None:
        """Adds squares of dloss/dW = sum over the tokens of a sample of g x^T.

        Args:
            inputs: (samples, tokens, in), or indices (samples, tokens).
            gradients: (samples, tokens, out).
        """
        module = self.modules[name]
        if not isinstance(module, nn.Embedding):
            squared = torch.bmm(gradients.mT, inputs).square_().sum(0)
            self._add_fisher(name, exact_sum(squared, 1), exact_sum(squared, 0))
            return
        for row, each in zip(inputs, gradients, strict=True):
            used, where = row.unique(return_inverse=True)
            squared = each.new_zeros(len(used), each.shape[1]).index_add_(0, where, each).square_()
            rows = each.new_zeros(module.num_embeddings).index_add_(0, used, squared.sum(1))
            self._add_fisher(name, rows, squared.sum(0))

    def _add_fisher(self, name: str, rows: Tensor, columns: Tensor) -> None:
        for (need, make), value in zip(OF_FISHER.items(), (rows, columns), strict=True):
            if need in self.needs:
                self._accumulator(name, need, make).add(value)

    def results(self) -> dict[str, Statistics]:
        """The statistics of each module; one that never ran has `tokens == 0`."""
        return self.tally.results(self.modules)


def _rows(x: Tensor) -> Tensor:
    """x (..., n) as (tokens, n) in float32."""
    return x.detach().float().reshape(x[..., 0].numel(), x.shape[-1])
