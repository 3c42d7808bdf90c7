"""Recomputing activations in the backward pass instead of holding them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eckart.statistics.batches import Batch

_FUNCTION = "_gradient_checkpointing_func"
"""Where transformers' blocks look for what runs them in parts."""


def activation_bytes(shapes: Sequence[tuple[int, int]], batches: Sequence[Batch]) -> int:
    """Roughly what a backward pass over one batch holds: inputs and outputs of every matrix, twice, in float32."""
    first = next(iter(batches), None)
    tokens = first.numel() if isinstance(first, Tensor) and not first.is_floating_point() else 0
    return 8 * tokens * sum(map(sum, shapes))


@contextmanager
def checkpointed(model: nn.Module, wanted: bool) -> Iterator[bool]:
    """Recomputes block activations in the backward pass, where the model can; yields whether it does.

    The blocks act as in eval mode all the while: nothing is dropped.
    """
    layers: list[Any] = [m for m in model.modules() if _can_recompute(m)] if wanted else []
    before = [(layer.training, layer.gradient_checkpointing, vars(layer).get(_FUNCTION)) for layer in layers]
    for layer in layers:
        # transformers recomputes only what is in training mode.
        layer.training = layer.gradient_checkpointing = True
        setattr(layer, _FUNCTION, _recomputing(layer))
    try:
        yield bool(layers)
    finally:
        for layer, (training, flag, function) in zip(layers, before, strict=True):
            layer.training, layer.gradient_checkpointing = training, flag
            if function is None:
                delattr(layer, _FUNCTION)
            else:
                setattr(layer, _FUNCTION, function)


def _can_recompute(module: nn.Module) -> bool:
    return any(kind.__name__ == "GradientCheckpointingLayer" for kind in type(module).__mro__)


def _recomputing(layer: nn.Module) -> Callable[..., Any]:
    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        def evaluated(*inputs: Any) -> Any:
            # Some blocks call dropout as a function of this flag.
            layer.training = False
            try:
                return function(*inputs)
            finally:
                layer.training = True

        return checkpoint(evaluated, *arguments, use_reentrant=False)

    return run
