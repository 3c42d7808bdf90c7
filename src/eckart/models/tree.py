"""A second module tree over the same tensors, and recomputing activations instead of holding them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eckart.statistics.collect import Batch


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode inside; afterwards each as it was, and new ones like what they stand in."""
    flags = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            # Parents come first, so that a new module finds the flag of the one around it.
            flags.setdefault(name, flags[name.rpartition(".")[0]])
            module.training = flags[name]


def share(model: nn.Module) -> nn.Module:
    """A copy of the module tree that shares every parameter and buffer: replacing a module in one leaves the other."""
    memo: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in memo:
            twin = memo[id(module)] = copy.copy(module)
            twin._parameters = dict(module._parameters)
            twin._buffers = dict(module._buffers)
            twin._modules = {n: None if m is None else copied(m) for n, m in module._modules.items()}
        return memo[id(module)]

    return copied(model)


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


_FUNCTION = "_gradient_checkpointing_func"
"""Where transformers' blocks look for what runs them in parts."""


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
