"""One pass over calibration batches that collects what the methods asked for around each matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from eckart.statistics.ahead import pass_over
from eckart.statistics.batches import Batch, call, numbered, one_by_one
from eckart.statistics.freezing import frozen
from eckart.statistics.labels import sampled_gradient
from eckart.statistics.needs import Need, Statistics
from eckart.statistics.padding import longest, without_padding
from eckart.statistics.precision import mixed
from eckart.statistics.recorder import Mingled, Recorder
from eckart.statistics.tally import Tally
from eckart.statistics.ties import also_looked_up, joined, with_ties

OnProgress = Callable[[int, int], None]


def collect(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    needs: Sequence[Need],
    batches: Sequence[Batch],
    *,
    seed: int = 0,
    mixed_precision: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Statistics]:
    """Runs the model over the batches and measures inputs and output gradients of some of its modules.

    Gradients are those of the log-likelihood of labels drawn from the model itself, see `sampled_gradient`. Weights get
    no gradients; the graph starts at the first measured module. Modules that are handed one and the same tensor share
    its statistics. A matrix that other modules hold too, as a head tied to the embedding does, is measured in all of
    them, see `joined`. Where a model puts the rows of several samples together and a statistic is one of samples, or
    where a matrix is used once for all samples of a batch, samples are run one by one.

    Args:
        model: in eval mode; called as `model(ids)` for a tensor, `model(**batch)` for a mapping.
        modules: what to measure, by name: linear maps over the last dimension; convolutions, dense or structured, whose
            tokens are the patches of an image (see `Statistics`); or nn.Embedding, for which the roles turn:
            `gradient_second_moment` holds the frequency of each row, `input_second_moment` E[g g^T] and
            `input_abs_mean` E|g|; `input_mean` is zero, because an embedding takes no bias. Indices may have any shape
            whose first dimension is that of the samples.
        needs: what to collect.
        batches: token ids (sequences, length), or mappings of tensors. The model is never run on what an
            `attention_mask` leaves out, see `without_padding`.
        seed: of the sampled labels.
        mixed_precision: run the model in bfloat16 where `torch.autocast` does; sums are in float32 and float64 all the
            same.
        on_progress: called with (batches done, batches in all).

    Returns:
        Statistics by name; a module that never ran has `tokens == 0`.

    Raises:
        Refused: the model cannot be called with a batch, makes NaN or Inf outputs of it, or it has padding that cannot
            be left out.
    """
    run = partial(
        measure, model, modules, needs, batches, seed=seed, mixed_precision=mixed_precision, on_progress=on_progress
    )
    try:
        tally = run()
    except Mingled:
        tally = run(singly=True)
    return statistics_of(model, modules, tally)


def measure(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    needs: Sequence[Need],
    batches: Sequence[Batch],
    *,
    singly: bool = False,
    seed: int = 0,
    mixed_precision: bool = False,
    share: range | None = None,
    on_progress: OnProgress | None = None,
) -> Tally:
    """What `collect` makes its statistics of, on all batches or on a share of them.

    Shares that follow one another, joined, are what all batches give, to rounding: labels are those that are drawn
    where no batch is left out, for which one batch of each shape before the share is run too.

    Args:
        model, modules, needs, batches, seed, mixed_precision, on_progress: as for `collect`.
        singly: run one sample at a time.
        share: the positions of those that are measured; None for all.

    Raises:
        Mingled: samples cannot be told from each other, unless they are run singly.
    """
    watched = with_ties(model, modules)
    recorder = Recorder(watched, frozenset(needs), also_looked_up(watched))
    generator = torch.Generator().manual_seed(seed)
    share = range(len(batches)) if share is None else share
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        stack.enter_context(mixed(model, mixed_precision))
        if share.start and (recorder.gradients or Need.INPUT_SAMPLE in needs):
            before = (part for batch in batches[: share.start] for part in parts_of(model, batch, singly))
            recorder.passed = pass_over(model, watched, before, generator)
        for name, module in watched.items():
            stack.callback(module.register_forward_hook(recorder.hook(name)).remove)
        for done, position in enumerate(share, 1):
            with numbered(position):
                for part in parts_of(model, batches[position], singly):
                    _measure(model, part, recorder, generator)
            if on_progress:
                on_progress(done, len(share))
    recorder.tally.settle()
    return recorder.tally


def statistics_of(model: nn.Module, modules: Mapping[str, nn.Module], tally: Tally) -> dict[str, Statistics]:
    """The statistics of modules, by name, from what `measure` found on all batches; the tally is used up."""
    return joined(tally.results(with_ties(model, modules)))


def parts_of(model: nn.Module, batch: Batch, singly: bool) -> list[Batch]:
    """What a model is called with for a batch, one call after the other."""
    groups = without_padding(model, batch)
    return [one for group in groups for one in one_by_one(group)] if singly else list(groups)


def _measure(model: nn.Module, batch: Batch, recorder: Recorder, generator: torch.Generator) -> None:
    """Runs a model on a batch, and back through it where gradients are measured."""
    recorder.start(batch, longest(model, batch))
    with torch.set_grad_enabled(recorder.gradients):
        output = call(model, batch)
        if recorder.gradients:
            target, gradient, labels = sampled_gradient(output, generator)
            recorder.tally.labels += labels
            recorder.recording_inputs = False
            torch.autograd.backward(target, gradient)
    recorder.finish()
