"""Where a pass would be behind batches that it leaves out: what was drawn for them, and the tokens they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from eckart.statistics.batches import Batch, call
from eckart.statistics.labels import Kind, drawn_from
from eckart.statistics.recorder import Recorder


@torch.no_grad()
def pass_over(
    model: nn.Module, modules: Mapping[str, nn.Module], parts: Iterable[Batch], generator: torch.Generator
) -> dict[str, int]:
    """Brings a generator to where it is after labels were drawn for some batches; returns tokens by name of a module.

    The model is run on one batch of each shape; where it routes tokens by what they are, their number is that of the
    batch that was run.
    """
    known: dict[object, tuple[Kind, torch.Size, torch.dtype, dict[str, int]]] = {}
    passed: dict[str, int] = {}
    for part in parts:
        shape = _shape_of(part)
        if shape not in known:
            recorder = Recorder(modules, frozenset())
            recorder.gradients = False  # tokens are counted, and nothing else
            hooks = [module.register_forward_hook(recorder.hook(name)) for name, module in modules.items()]
            try:
                recorder.start(part)
                target, kind = drawn_from(call(model, part))
            finally:
                for hook in hooks:
                    hook.remove()
            known[shape] = kind, target.shape, target.dtype, recorder.tally.tokens
        kind, size, dtype, tokens = known[shape]
        kind.noise(size, dtype, generator)
        for name, count in tokens.items():
            passed[name] = passed.get(name, 0) + count
    return passed


def _shape_of(batch: Batch) -> object:
    """What two batches have in common of which a model's output has the same shape."""
    if isinstance(batch, Tensor):
        return batch.shape
    return tuple(sorted((name, getattr(value, "shape", None)) for name, value in batch.items()))
