"""One pass over calibration batches that collects what the methods asked for around each matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from eckart.statistics.needs import Need, Statistics
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

    Gradients are those of the log-likelihood of labels drawn from the model itself: a categorical label for each
    position of `output.logits`, or a unit-variance Gaussian around any other output. Weights get no gradients; the
    graph starts at the first measured module. Modules that are handed one and the same tensor share its statistics.

    Args:
        model: in eval mode; called as `model(ids)` for a tensor, `model(**batch)` for a mapping.
        modules: what to measure, by name: linear maps over the last dimension, or nn.Embedding, for which the roles
            turn: `gradient_second_moment` holds the frequency of each row, `input_second_moment` E[g g^T] and
            `input_abs_mean` E|g|; `input_mean` is zero, because an embedding takes no bias.
        needs: what to collect.
        batches: token ids (sequences, length), or mappings of tensors; an `attention_mask` drops padding.
        seed: of the sampled labels.
        on_progress: called with (batches done, batches in all).

    Returns:
        Statistics by name; a module that never ran has `tokens == 0`.

    Raises:
        ValueError: a batch makes NaN or Inf outputs.
    """
    recorder = _Recorder(modules, frozenset(needs))
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        stack.enter_context(_frozen(model))
        for name, module in modules.items():
            handle = module.register_forward_hook(recorder.hook(name))
            stack.callback(handle.remove)
        for done, batch in enumerate(batches):
            recorder.start(batch)
            with torch.set_grad_enabled(recorder.gradients):
                output = call(model, batch)
                if recorder.gradients:
                    target, gradient = _sampled_gradient(output, generator, recorder.mask)
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


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside."""
    asked = [p for p in model.parameters() if p.requires_grad]
    for p in asked:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)


def _sampled_gradient(output: Any, generator: torch.Generator, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where to start, and the gradient there of -log p(y), y drawn from p: softmax(z) - onehot(y), or noise."""
    logits = getattr(output, "logits", None)
    if logits is None:
        target = output if isinstance(output, Tensor) else output[0]
        gradient = torch.randn(target.shape, generator=generator, dtype=target.dtype)
    else:
        target = logits
        gradient = logits.detach().float().softmax(-1).flatten(0, -2)
        labels = draw(gradient, generator)
        gradient.scatter_add_(1, labels, gradient.new_full(labels.shape, -1.0))
        gradient = gradient.view(logits.shape).to(logits.dtype)
    if not torch.isfinite(target).all():
        raise ValueError("the model's output on calibration text has NaN or Inf entries")
    if mask is not None and mask.shape == gradient.shape[:2]:
        gradient = gradient * mask[..., None]
    return target, gradient


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One index from each row of probabilities (n, k): (n, 1), int64."""
    u = torch.rand(len(probabilities), 1, generator=generator)
    return torch.searchsorted(probabilities.cumsum(-1), u).clamp_max(probabilities.shape[1] - 1)


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
        self.tokens: dict[str, int] = {}
        self.samples: dict[str, int] = {}
        self.sampled: dict[str, Sample] = {}
        self._seen: dict[int, tuple[Tensor, str]] = {}

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
                self._add_input(name, x)
            if not self.gradients:
                return None
            if not output.requires_grad:
                output = output.detach().requires_grad_()
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
        return lambda gradient: self._add_gradient(name, held, gradient.detach().float())

    def _kept(self, x: Tensor, leading: torch.Size) -> Tensor:
        """x (sequences, length, ...) as (tokens, ...), padding left out; `leading` is the shape of its tokens."""
        if self.mask is not None and leading == self.mask.shape:
            return x[self.mask.bool()]
        return x.reshape(-1, *x.shape[len(leading) :])

    def _rows(self, x: Tensor) -> Tensor:
        return self._kept(x.detach().float(), x.shape[:-1])

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

    def _add_input(self, name: str, x: Tensor) -> None:
        found = self._seen.setdefault(id(x), (x, name))[1]
        leader = self.leader.setdefault(name, found)
        self.tokens[name] = self.tokens.get(name, 0) + len(self._kept(x.detach()[..., 0], x.shape[:-1]))
        self.samples[name] = self.samples.get(name, 0) + x.shape[0]
        if leader != name:
            if found != leader:
                raise ValueError(f"{name!r} shared its input with {leader!r} in one batch and not in another")
            return
        wanted = self.needs & _INPUTS
        if not wanted:
            return
        rows = self._rows(x)
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
            for row, each in zip(ids.flatten(1), gradient.flatten(1, -2), strict=True):
                used, where = row.unique(return_inverse=True)
                squared = each.new_zeros(len(used), each.shape[1]).index_add_(0, where, each).square_()
                self._add_fisher(name, torch.zeros(count).index_add_(0, used, squared.sum(1)), squared.sum(0))

    def _add_gradient(self, name: str, x: Tensor | None, gradient: Tensor) -> None:
        if Need.GRADIENT_SECOND_MOMENT in self.needs:
            self._add_second_moment(name, Need.GRADIENT_SECOND_MOMENT, self._rows(gradient))
        if x is not None:
            # One sequence is one sample of dloss/dW = sum over its tokens of g x^T.
            a, b = (t.reshape(t.shape[0], -1, t.shape[-1]) for t in (gradient, x.detach().float()))
            squared = torch.bmm(a.transpose(1, 2), b).square_().sum(0)
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
            total /= max(1, (self.samples if need in _FISHER else self.tokens)[name])
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
            results[name] = Statistics(tokens=self.tokens.get(name, 0), **values)
        return results


def _stripes(n: int) -> list[tuple[int, int]]:
    """Row blocks of the upper triangle of an n x n Gram matrix; few enough that each product stays large."""
    parts = max(1, min(8, n // 192))
    edges = [n * i // parts for i in range(parts + 1)]
    return list(pairwise(edges))
