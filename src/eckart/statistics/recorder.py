"""Hooks on modules that hand what passes through them to the accumulators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.patches import Geometry, geometry_of, patch_of
from eckart.statistics.accumulators import GRADIENT_NEEDS, OF_FISHER, OF_INPUTS, Accumulator
from eckart.statistics.needs import Need, Statistics
from eckart.statistics.patches import images, patches_of, positions, products
from eckart.statistics.second_moment import SecondMoment
from eckart.statistics.sums import Sum

BATCHES_IN_FLOAT32 = 16
"""Products of so many batches are summed in float32 before they are added in float64."""


class Recorder:
    """Fills accumulators, a few batches in float32 at a time.

    Args:
        modules: what is measured, by name.
        needs: what is kept of each.
    """

    def __init__(self, modules: Mapping[str, nn.Module], needs: frozenset[Need]) -> None:
        self.modules = modules
        self.needs = needs
        self.gradients = bool(needs & GRADIENT_NEEDS) or any(isinstance(m, nn.Embedding) for m in modules.values())
        self.mask: Tensor | None = None
        self.recording_inputs = False
        self.leader: dict[str, str] = {}
        self.kept: dict[tuple[str, Need], Accumulator] = {}
        self.batches = 0
        self.labels = 0
        self.tokens: dict[str, int] = {}
        self.samples: dict[str, int] = {}
        self._seen: dict[tuple[int, Geometry | None], tuple[Tensor, str]] = {}

    def start(self, batch: Tensor | Mapping[str, Tensor]) -> None:
        """Before the model is called on a batch."""
        self.mask = None if isinstance(batch, Tensor) else batch.get("attention_mask")
        self.recording_inputs = True

    def finish(self) -> None:
        """After the model was called on a batch, and back through it where gradients are measured."""
        self._seen.clear()
        self.batches += 1
        if self.batches % BATCHES_IN_FLOAT32 == 0:
            self._settle()

    def _settle(self) -> None:
        for accumulator in self.kept.values():
            accumulator.settle()

    def _accumulator(self, name: str, need: Need, make: Callable[[], Accumulator]) -> Accumulator:
        key = (name, need)
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def forward_hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
            x: Tensor = arguments[0]
            recorded = self.recording_inputs
            if recorded and isinstance(module, nn.Embedding):
                self._count_rows(name, module, x)
            elif recorded:
                self._add_input(name, x, geometry_of(module))
            if not self.gradients:
                return None
            if not output.requires_grad:
                output = output.detach().requires_grad_()
                if geometry_of(module) is not None:
                    output = output.clone()  # what follows may work in place, which no leaf of the graph allows
            if recorded:
                watch: Any = output
                watch.register_hook(self._gradient_hook(name, module, x))
            return output

        return forward_hook

    def _gradient_hook(self, name: str, module: nn.Module, x: Tensor) -> Callable[[Tensor], None]:
        if isinstance(module, nn.Embedding):
            return lambda gradient: self._add_row_gradient(name, module, x, gradient.detach().float())
        # What the hook holds lives until the backward pass.
        held = x if self.needs & OF_FISHER.keys() else None
        geometry = geometry_of(module)
        return lambda gradient: self._add_gradient(name, held, gradient.detach().float(), geometry)

    def _kept(self, x: Tensor, leading: torch.Size) -> Tensor:
        """x (sequences, length, ...) as (tokens, ...), padding left out; `leading` is the shape of its tokens."""
        if self.mask is not None and leading == self.mask.shape:
            return x[self.mask.bool()]
        return x.reshape(-1, *x.shape[len(leading) :])

    def _rows(self, x: Tensor) -> Tensor:
        return self._kept(x.detach().float(), x.shape[:-1])

    def _pieces(self, x: Tensor, geometry: Geometry | None) -> Iterator[Tensor]:
        """Inputs as (tokens, in) in float32; patches, which padding of sequences says nothing about, piece by piece."""
        if geometry is None:
            yield self._rows(x)
        else:
            yield from (patches.flatten(0, 1) for patches in patches_of(x, geometry))

    def _add_input(self, name: str, x: Tensor, geometry: Geometry | None) -> None:
        found = self._seen.setdefault((id(x), geometry), (x, name))[1]
        leader = self.leader.setdefault(name, found)
        tokens = positions(x, geometry) if geometry else len(self._kept(x.detach()[..., 0], x.shape[:-1]))
        self.tokens[name] = self.tokens.get(name, 0) + tokens
        self.samples[name] = self.samples.get(name, 0) + (len(images(x)) if geometry else x.shape[0])
        if leader != name:
            if found != leader:
                raise Refused(f"{name!r} shared its input with {leader!r} in one batch and not in another")
            return
        kept = [self._accumulator(name, need, make) for need, make in OF_INPUTS.items() if need in self.needs]
        if not kept:
            return
        for rows in self._pieces(x, geometry):
            for accumulator in kept:
                accumulator.add(rows)

    def _count_rows(self, name: str, module: nn.Embedding, ids: Tensor) -> None:
        self.leader[name] = name
        self.samples[name] = self.samples.get(name, 0) + ids.shape[0]
        ids = self._kept(ids, ids.shape)
        self.tokens[name] = self.tokens.get(name, 0) + ids.numel()
        counts = torch.bincount(ids, minlength=module.num_embeddings)
        self._accumulator(name, Need.GRADIENT_SECOND_MOMENT, Sum).add(counts)

    def _add_row_gradient(self, name: str, module: nn.Embedding, ids: Tensor, gradient: Tensor) -> None:
        g = self._rows(gradient)
        self._accumulator(name, Need.INPUT_SECOND_MOMENT, SecondMoment).add(g)
        if Need.INPUT_MEAN in self.needs:
            self._accumulator(name, Need.INPUT_MEAN, Sum).add(g.new_zeros(g.shape[1]))
        if Need.INPUT_ABS_MEAN in self.needs:
            self._accumulator(name, Need.INPUT_ABS_MEAN, Sum).add(g.abs().sum(0, dtype=torch.float64))
        if self.needs & OF_FISHER.keys():
            count = module.num_embeddings
            samples = ids.reshape(len(ids), -1)
            for row, each in zip(samples, gradient.reshape(*samples.shape, -1), strict=True):
                used, where = row.unique(return_inverse=True)
                squared = each.new_zeros(len(used), each.shape[1]).index_add_(0, where, each).square_()
                self._add_fisher(name, each.new_zeros(count).index_add_(0, used, squared.sum(1)), squared.sum(0))

    def _add_gradient(self, name: str, x: Tensor | None, gradient: Tensor, geometry: Geometry | None) -> None:
        if Need.GRADIENT_SECOND_MOMENT in self.needs:
            rows = self._rows(gradient) if geometry is None else images(gradient).movedim(1, -1).flatten(0, -2)
            self._accumulator(name, Need.GRADIENT_SECOND_MOMENT, SecondMoment).add(rows)
        if x is None:
            return
        # One sequence, or one image, is one sample of dloss/dW = sum over its tokens of g x^T.
        for inputs, gradients in products(x, gradient, geometry):
            squared = torch.bmm(gradients.mT, inputs).square_().sum(0)
            self._add_fisher(name, squared.sum(1, dtype=torch.float64), squared.sum(0, dtype=torch.float64))

    def _add_fisher(self, name: str, rows: Tensor, columns: Tensor) -> None:
        for (need, make), value in zip(OF_FISHER.items(), (rows, columns), strict=True):
            if need in self.needs:
                self._accumulator(name, need, make).add(value)

    def results(self) -> dict[str, Statistics]:
        """The statistics of each module; one that never ran has `tokens == 0`."""
        self._settle()
        done: dict[tuple[str, Need], Tensor] = {}
        for name, need in list(self.kept):
            images_count = geometry_of(self.modules[name]) is not None and need in GRADIENT_NEEDS
            count = (self.samples if images_count or need in OF_FISHER else self.tokens)[name]
            done[name, need] = self.kept.pop((name, need)).result(count)
        results = {}
        for name in self.modules:
            leader = self.leader.get(name, name)
            values = {}
            for need in Need:
                value = done.get((leader if need in OF_INPUTS else name, need))
                if value is not None:
                    values[need.value] = value
            tokens, patch = self.tokens.get(name, 0), patch_of(self.modules[name])
            results[name] = Statistics(
                tokens=tokens,
                uses=tokens / self.labels if tokens and self.labels and patch is None else 1.0,
                lookup=isinstance(self.modules[name], nn.Embedding),
                patch=patch,
                **values,
            )
        return results
