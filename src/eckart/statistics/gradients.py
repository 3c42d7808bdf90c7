"""The mean gradient of a task's loss by each matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.patches import geometry_of
from eckart.statistics.batches import Batch, beside, calling, numbered, samples_in
from eckart.statistics.collect import OnProgress
from eckart.statistics.freezing import frozen
from eckart.statistics.padding import IGNORED, without_padding
from eckart.statistics.patches import products


def mean_gradients(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    *,
    on_progress: OnProgress | None = None,
) -> dict[str, Tensor]:
    """The gradient of the loss by the matrix of each module, averaged over batches; labels are those of the data.

    The model is never run on padding: a batch whose sequences are of several lengths is the mean of those, by the
    number of their labels.

    Args:
        model: in eval mode; what it returns for `model(**batch)` has a `loss`.
        modules: linear maps over the last dimension, or convolutions, by name.
        batches: token ids (sequences, length), which are their own labels, or mappings with what the model needs.
        on_progress: called with (batches done, batches in all).

    Returns:
        (out, in) by name, float32, in the memory of the CPU; a module that never ran is left out.

    Raises:
        Refused: the model returns no loss, or one that is not finite.
    """
    sums: dict[str, Tensor] = {}
    weight = 1.0

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def forward_hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            x: Tensor = arguments[0].detach()
            # A copy, because what follows may work in place, which takes the hook off a view and no leaf allows.
            watched: Any = (output if output.requires_grad else output.detach().requires_grad_()).clone()

            def add(gradient: Tensor) -> None:
                for inputs, gradients in products(x, gradient, geometry_of(module)):
                    product = weight * (gradients.flatten(0, 1).T @ inputs.flatten(0, 1))
                    sums[name] = sums[name] + product if name in sums else product

            watched.register_hook(add)
            found: Tensor = watched
            return found

        return forward_hook

    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(hook(name)).remove)
        for done, batch in enumerate(batches, 1):
            with numbered(done - 1):
                parts = without_padding(model, _labelled(batch))
                counts = [labels_in(model, part) for part in parts]
                for part, count in zip(parts, counts, strict=True):
                    weight = count / max(1, sum(counts))
                    if weight:
                        _loss(model, part).backward()  # type: ignore[no-untyped-call]
            if on_progress:
                on_progress(done, len(batches))
    return {name: total.cpu() / len(batches) for name, total in sums.items()}


def _labelled(batch: Batch) -> Mapping[str, Tensor]:
    """A batch as the model takes it for a loss; Refused where there are no labels in it, nor can they be made."""
    if not isinstance(batch, Tensor):
        return batch
    if batch.is_floating_point():
        raise Refused("a tensor of numbers is not its own labels: give mappings of what the model takes")
    return {"input_ids": batch, "labels": batch}


@torch.enable_grad()
def _loss(model: nn.Module, batch: Batch) -> Tensor:
    batch = beside(model, batch)
    assert not isinstance(batch, Tensor)
    with calling(model, batch):
        loss = getattr(model(**batch), "loss", None)
    if not isinstance(loss, Tensor):
        raise Refused(
            f"{type(model).__name__} returned no loss: give batches with labels, as mappings of what the model takes"
        )
    if not torch.isfinite(loss):
        raise Refused(f"the loss on calibration data is {float(loss)}")
    return loss


def labels_in(model: nn.Module, batch: Batch) -> int:
    """Over how many labels the loss of a batch is a mean: those of tokens that are not ignored, else its samples."""
    labels = None if isinstance(batch, Tensor) else batch.get("labels")
    if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
        return samples_in(batch)
    config = getattr(model, "config", None)
    follows = getattr(getattr(model, "loss_function", None), "__name__", "") == "ForCausalLMLoss"
    if follows and not getattr(config, "is_encoder_decoder", False):
        labels = labels[:, 1:]  # nothing predicts the first token
    return int(labels.ne(IGNORED).sum())
