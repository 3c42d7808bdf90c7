"""One pass over calibration batches that collects what the methods asked for around each matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from eckart.statistics.freezing import frozen
from eckart.statistics.labels import sampled_gradient
from eckart.statistics.needs import Need, Statistics
from eckart.statistics.recorder import Recorder

Batch = Tensor | Mapping[str, Tensor]
OnProgress = Callable[[int, int], None]


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
    recorder = Recorder(modules, frozenset(needs))
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
