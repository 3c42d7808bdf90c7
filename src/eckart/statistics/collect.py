"""One pass over calibration batches that collects what the methods asked for around each matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.patches import Geometry, geometry_of, kernel_of
from eckart.statistics.freezing import frozen
from eckart.statistics.labels import sampled_gradient
from eckart.statistics.needs import Need, Statistics
from eckart.statistics.patches import images, patches_of, positions, products
from eckart.statistics.sample import Sample

Batch = Tensor | Mapping[str, Tensor]
OnProgress = Callable[[int, int], None]

_FISHER = frozenset({Need.FISHER_ROWS, Need.FISHER_COLUMNS})
_INPUTS = frozenset({Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.INPUT_ABS_MEAN, Need.INPUT_SAMPLE})
GRADIENT_NEEDS = frozenset({Need.GRADIENT_SECOND_MOMENT}) | _FISHER
LARGEST_MOMENT = 16384
"""Dimensions above this (a vocabulary) keep only the diagonal of their second moment."""
BATCHES_IN_FLOAT32 = 16
"""Products of so many batches are summed in float32 before they are added in float64."""


def collect(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    needs: Sequence[Need],
    batches: Sequence[Batch],
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, Statistics]:
    """Runs the model over the batches and measures inputs and output gradients of some of its modules.

    Gradients are those of the log-likelihood of labels drawn from the model itself, see `sampled_gradient`. Weights get
    no gradients; the graph starts at the first measured module. Modules that are handed one and the same tensor share
    its statistics.

    Args:
        model: in eval mode; called as `model(ids)` for a tensor, `model(**batch)` for a mapping.
        modules: what to measure, by name: linear maps over the last dimension; convolutions, dense or structured, whose
            tokens are the patches of an image (see `Statistics`); or nn.Embedding, for which the roles turn:
            `gradient_second_moment` holds the frequency of each row, `input_second_moment` E[g g^T] and
            `input_abs_mean` E|g|; `input_mean` is zero, because an embedding takes no bias. Indices may have any shape
            whose first dimension is that of the samples.
        needs: what to collect.
        batches: token ids (sequences, length), or mappings of tensors; an `attention_mask` drops padding.
        seed: of the sampled labels.
        on_progress: called with (batches done, batches in all).

    Returns:
        Statistics by name; a module that never ran has `tokens == 0`.

    Raises:
        Refused: a batch makes NaN or Inf outputs.
    """
    recorder = _Recorder(modules, frozenset(needs))
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        for name, module in modules.items():
            handle = module.register_forward_hook(recorder.hook(name))
            stack.callback(handle.remove)
        for done, batch in enumerate(batches):
            recorder.start(batch)
            with torch.set_grad_enabled(recorder.gradients):
                output = call(model, batch)
                if recorder.gradients:
                    target, gradient, labels = sampled_gradient(output, generator, recorder.mask)
                    recorder.labels += labels
                    recorder.recording_inputs = False
                    torch.autograd.backward(target, gradient)
            recorder.finish()
            if on_progress:
                on_progress(done + 1, len(batches))
    return recorder.results()


def call(model: nn.Module, batch: Batch) -> Any:
    """The model's output on a batch; a language model is not to keep its keys and values."""
    extra = {"use_cache": False} if hasattr(model, "generation_config") else {}
    return model(batch, **extra) if isinstance(batch, Tensor) else model(**batch, **extra)


class _Recorder:
    """Accumulators in float64, filled by hooks, a few batches in float32 at a time."""

    def __init__(self, modules: Mapping[str, nn.Module], needs: frozenset[Need]) -> None:
        self.modules = modules
        self.needs = needs
        self.gradients = bool(needs & GRADIENT_NEEDS) or any(isinstance(m, nn.Embedding) for m in modules.values())
        self.mask: Tensor | None = None
        self.recording_inputs = False
        self.leader: dict[str, str] = {}
        self.sums: dict[tuple[str, Need], Tensor] = {}
        self.fresh: dict[tuple[str, Need], Tensor] = {}
        self.batches = 0
        self.labels = 0
        self.tokens: dict[str, int] = {}
        self.samples: dict[str, int] = {}
        self.sampled: dict[str, Sample] = {}
        self._seen: dict[tuple[int, Geometry | None], tuple[Tensor, str]] = {}

    def start(self, batch: Batch) -> None:
        self.mask = None if isinstance(batch, Tensor) else batch.get("attention_mask")
        self.recording_inputs = True

    def finish(self) -> None:
        self._seen.clear()
        self.batches += 1
        if self.batches % BATCHES_IN_FLOAT32 == 0:
            self._flush()

    def _flush(self) -> None:
        for key in list(self.fresh):
            self._add(*key, self.fresh.pop(key))

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
            return lambda gradient: self._add_row_gradient(name, x, gradient.detach().float())
        # What the hook holds lives until the backward pass.
        held = x if self.needs & _FISHER else None
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

    def _add(self, name: str, need: Need, value: Tensor) -> None:
        key = (name, need)
        if key in self.sums:
            self.sums[key] += value
        else:
            self.sums[key] = value.double()

    def _add_second_moment(self, name: str, need: Need, x: Tensor) -> None:
        """Adds x^T x, the upper block triangle only, in place."""
        n = x.shape[1]
        if n > LARGEST_MOMENT:
            self._add(name, need, x.square().sum(0))
            return
        key = (name, need)
        if key not in self.fresh:
            self.fresh[key] = torch.zeros(n, n)
        for start, stop in _stripes(n):
            self.fresh[key][start:stop, start:].addmm_(x[:, start:stop].T, x[:, start:])

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
        wanted = self.needs & _INPUTS
        if not wanted:
            return
        for rows in self._pieces(x, geometry):
            if Need.INPUT_SAMPLE in wanted:
                self.sampled.setdefault(name, Sample()).add(rows)
            if Need.INPUT_SECOND_MOMENT in wanted:
                self._add_second_moment(name, Need.INPUT_SECOND_MOMENT, rows)
            if Need.INPUT_MEAN in wanted:
                self._add(name, Need.INPUT_MEAN, rows.sum(0))
            if Need.INPUT_ABS_MEAN in wanted:
                self._add(name, Need.INPUT_ABS_MEAN, rows.abs().sum(0))

    def _count_rows(self, name: str, module: nn.Embedding, ids: Tensor) -> None:
        self.leader[name] = name
        self.samples[name] = self.samples.get(name, 0) + ids.shape[0]
        ids = self._kept(ids, ids.shape)
        self.tokens[name] = self.tokens.get(name, 0) + ids.numel()
        counts = torch.bincount(ids, minlength=module.num_embeddings)
        self._add(name, Need.GRADIENT_SECOND_MOMENT, counts)

    def _add_row_gradient(self, name: str, ids: Tensor, gradient: Tensor) -> None:
        g = self._rows(gradient)
        self._add_second_moment(name, Need.INPUT_SECOND_MOMENT, g)
        if Need.INPUT_MEAN in self.needs:
            self._add(name, Need.INPUT_MEAN, torch.zeros(g.shape[1], dtype=torch.float64))
        if Need.INPUT_ABS_MEAN in self.needs:
            self._add(name, Need.INPUT_ABS_MEAN, g.abs().sum(0, dtype=torch.float64))
        if self.needs & _FISHER:
            count = len(self.sums[name, Need.GRADIENT_SECOND_MOMENT])
            samples = ids.reshape(len(ids), -1)
            for row, each in zip(samples, gradient.reshape(*samples.shape, -1), strict=True):
                used, where = row.unique(return_inverse=True)
                squared = each.new_zeros(len(used), each.shape[1]).index_add_(0, where, each).square_()
                self._add_fisher(name, torch.zeros(count).index_add_(0, used, squared.sum(1)), squared.sum(0))

    def _add_gradient(self, name: str, x: Tensor | None, gradient: Tensor, geometry: Geometry | None) -> None:
        if Need.GRADIENT_SECOND_MOMENT in self.needs:
            rows = self._rows(gradient) if geometry is None else images(gradient).movedim(1, -1).flatten(0, -2)
            self._add_second_moment(name, Need.GRADIENT_SECOND_MOMENT, rows)
        if x is None:
            return
        # One sequence, or one image, is one sample of dloss/dW = sum over its tokens of g x^T.
        for inputs, gradients in products(x, gradient, geometry):
            squared = torch.bmm(gradients.mT, inputs).square_().sum(0)
            self._add_fisher(name, squared.sum(1, dtype=torch.float64), squared.sum(0, dtype=torch.float64))

    def _add_fisher(self, name: str, rows: Tensor, columns: Tensor) -> None:
        if Need.FISHER_ROWS in self.needs:
            self._add(name, Need.FISHER_ROWS, rows)
        if Need.FISHER_COLUMNS in self.needs:
            self._add(name, Need.FISHER_COLUMNS, columns)

    def results(self) -> dict[str, Statistics]:
        self._flush()
        done = {(name, Need.INPUT_SAMPLE): sample.rows for name, sample in self.sampled.items()}
        for name, need in list(self.sums):
            # In place: together the sums are as large as several models.
            total = self.sums.pop((name, need))
            by_sample = need in _FISHER or (need in GRADIENT_NEEDS and geometry_of(self.modules[name]) is not None)
            total /= max(1, (self.samples if by_sample else self.tokens)[name])
            if total.ndim == 2:
                for start, stop in _stripes(len(total)):
                    total[stop:, start:stop] = total[start:stop, stop:].T
            done[name, need] = total
        results = {}
        for name in self.modules:
            leader = self.leader.get(name, name)
            values = {}
            for need in Need:
                value = done.get((leader if need in _INPUTS else name, need))
                if value is not None:
                    values[need.value] = value
            tokens, kernel = self.tokens.get(name, 0), kernel_of(self.modules[name])
            results[name] = Statistics(
                tokens=tokens,
                uses=tokens / self.labels if tokens and self.labels and kernel is None else 1.0,
                lookup=isinstance(self.modules[name], nn.Embedding),
                kernel=kernel,
                **values,
            )
        return results


def _stripes(n: int) -> list[tuple[int, int]]:
    """Row blocks of the upper triangle of an n x n Gram matrix; few enough that each product stays large."""
    parts = max(1, min(8, n // 192))
    edges = [n * i // parts for i in range(parts + 1)]
    return list(pairwise(edges))
