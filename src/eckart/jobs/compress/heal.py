"""Training what was compressed, block by block, towards the outputs of the dense model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eckart.errors import Refused
from eckart.jobs.compress.block_streams import Call, Observed, entering, forward, hidden_of
from eckart.models.modules import StructuredEmbedding, StructuredLinear, Tied, TiedLinear
from eckart.statistics.batches import Batch
from eckart.structures import Shared

RATE = 1e-3
"""Largest step of an entry, relative to the root mean square of its leaf."""
JUDGES = 8
"""One batch in so many trains nothing and judges instead."""
CHECKS = 8
"""How often a block is judged while it is trained."""


def relative_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean over tokens of ||y - t||^2 / ||t||^2, so that a few huge hidden states do not outweigh all others.

    Args:
        output: y, (..., n).
        target: t, (..., n).
    """
    y, t = _exact(output), _exact(target)
    tiny = torch.finfo(t.dtype).tiny
    return ((y - t).square().sum(-1) / t.square().sum(-1).clamp_min(tiny)).mean()


@dataclass(frozen=True)
class Healing:
    """What the training did.

    Attributes:
        steps: of each block.
        before, after: `relative_error` of each block on held-back batches, given the same inputs.
    """

    steps: int
    before: tuple[float, ...]
    after: tuple[float, ...]


def cut(batches: Sequence[Batch], least: int = JUDGES) -> list[Batch]:
    """The same sequences in at least `least` batches, where there are as many, so that some can be held back.

    Only token ids are cut, and mappings whose tensors have one leading extent: of other tensors it is not known along
    which dimension they may be.
    """
    parts = -(-least // max(1, len(batches)))
    pieces: list[Batch] = []
    for batch in batches:
        tensors = {"": batch} if isinstance(batch, Tensor) else dict(batch)
        lengths = {len(t) if t.ndim else 1 for t in tensors.values()}
        cuttable = len(lengths) == 1 and not (isinstance(batch, Tensor) and batch.is_floating_point())
        count = min(parts, *lengths) if cuttable else 1
        if count <= 1:
            pieces.append(batch)
        elif isinstance(batch, Tensor):
            pieces += batch.tensor_split(count)
        else:
            split = {name: t.tensor_split(count) for name, t in tensors.items()}
            pieces += [{name: split[name][i] for name in split} for i in range(count)]
    return pieces


@torch.no_grad()
def heal(
    model: nn.Module,
    observed: Observed,
    steps: int,
    *,
    rate: float = RATE,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Healing:
    """Trains the structures of each block, first block first, to return what the dense block returns.

    A block gets the hidden states that the healed blocks in front of it hand on; its target is the output of the
    dense block in the dense model. Float leaves of structures and biases beside them are trained; all else stays: a
    block that is tied to another or reads a structure in one, and the structure that is read. Adam at a relative rate
    that falls as a half cosine, `relative_error` on one batch a step; every eighth batch is held back, and the values
    that do best on those are kept, the first ones included. Where the model is narrower than float32 the training is
    in float32, the judgement not.

    Args:
        model: compressed, in eval mode; changed in place.
        observed: of the dense model, before it was compressed.
        steps: for each block, at least 1.
        rate: see `RATE`.
        seed: of the order of the batches.
        on_progress: called with (blocks done, blocks in all).

    Raises:
        Refused: steps or rate make no sense, or a block returns NaN or Inf.
    """
    if steps < 1 or not 0 < rate < math.inf:
        raise Refused(f"steps={steps} must be at least 1, and rate={rate} above 0 and finite")
    generator = torch.Generator().manual_seed(seed)
    dense, healed = observed.hidden, entering(model, observed)
    before, after = [], []
    blocks = observed.blocks(model)
    shared, read = _sharing(model, observed.prefix)
    for b, (twin, block) in enumerate(blocks):
        calls = observed.calls[b]
        dense, _ = forward(twin, dense, calls, [])
        task = _Task(block, calls, healed, dense)
        names = [] if str(b) in shared else [n for n in _trained(block) if id(block.get_parameter(n)) not in read]
        first = task.judged({})
        if not math.isfinite(first):
            raise Refused(f"{observed.prefix}.{b} returns NaN or Inf on calibration data, so it cannot be healed")
        before.append(first)
        after.append(_train(task, names, first, steps, rate, generator) if names else first)
        healed, _ = forward(block, healed, calls, [])
        if on_progress:
            on_progress(b + 1, len(blocks))
    return Healing(steps, tuple(before), tuple(after))


class _Task:
    """One block with its inputs and targets, by batch; some batches judge, the others train."""

    def __init__(
        self,
        block: nn.Module,
        calls: Sequence[Call],
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
    ) -> None:
        self.block = block
        self._data = list(zip(calls, inputs, targets, strict=True))
        everything = range(len(self._data))
        self._judges = [i for i in everything if i % JUDGES == JUDGES - 1] or [len(self._data) - 1]
        self.training = [i for i in everything if i not in self._judges] or self._judges
        values = {**dict(block.named_parameters()), **dict(block.named_buffers())}
        self.exact = {name: _exact(value.detach()) for name, value in values.items()}

    def judged(self, values: Mapping[str, Tensor]) -> float:
        """The error on held-back batches, with other values of some parameters, in the block's own precision."""
        errors, tokens = 0.0, 0
        for i in self._judges:
            (arguments, keywords), z, target = self._data[i]
            output = hidden_of(functional_call(self.block, dict(values), (z, *arguments), keywords))
            here = target[..., 0].numel()
            errors += here * float(relative_error(output, target))
            tokens += here
        return errors / max(1, tokens)

    def loss(self, values: Mapping[str, Tensor], i: int) -> Tensor:
        """The error on one batch, in at least float32."""
        (arguments, keywords), z, target = self._data[i]
        inputs = (_exact(z), *_exact_tree(arguments))
        output = functional_call(self.block, {**self.exact, **values}, inputs, _exact_tree(keywords))
        return relative_error(hidden_of(output), target)


def _train(
    task: _Task, names: Sequence[str], first: float, steps: int, rate: float, generator: torch.Generator
) -> float:
    """Trains the named parameters of a block; returns the error on held-back batches of those that are kept."""
    parameters = {name: task.block.get_parameter(name) for name in names}
    values = {name: task.exact[name].clone().requires_grad_() for name in names}
    scales = _scales(values)
    # A rate of its own for each leaf; epsilon is out of the way of gradients of any size.
    optimizer = torch.optim.Adam([{"params": [v]} for v in values.values()], eps=1e-20)
    best, least = {}, first
    order: list[int] = []
    for step in range(steps):
        if not order:
            order = [task.training[i] for i in torch.randperm(len(task.training), generator=generator).tolist()]
        decay = (1 + math.cos(math.pi * step / steps)) / 2
        for group, name in zip(optimizer.param_groups, names, strict=True):
            group["lr"] = rate * decay * scales[name]
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = task.loss(values, order.pop())
        if loss.requires_grad:  # not so where no matrix of the block was asked, as in experts no token goes to
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) * CHECKS // steps > step * CHECKS // steps:
            now = {name: v.detach().to(parameters[name].dtype, copy=True) for name, v in values.items()}
            error = task.judged(now)
            if error < least:
                best, least = now, error
    for name, value in best.items():
        parameters[name].copy_(value)
    return least


def _scales(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The root mean square of each leaf; for one of zeros the mean of those beside it."""
    own = {name: float(torch.linalg.vector_norm(v.detach())) / math.sqrt(v.numel()) for name, v in values.items()}
    layers: dict[str, list[float]] = {}
    for name, scale in own.items():
        if scale > 0:
            layers.setdefault(_layer(name), []).append(scale)
    beside = {layer: sum(scales) / len(scales) for layer, scales in layers.items()}
    return {name: scale or beside.get(_layer(name), 0.0) for name, scale in own.items()}


def _layer(name: str) -> str:
    """The module that a bias, or a leaf of its structure, belongs to."""
    return f".{name}".split(".structure.")[0].removesuffix(".bias")


def _trained(block: nn.Module) -> list[str]:
    """Names of the parameters in structures, and of the biases beside them, that ask for gradients."""
    kinds = StructuredLinear, StructuredEmbedding, TiedLinear
    found = {n for name, m in block.named_modules() if isinstance(m, kinds) for n, _ in m.named_parameters(name)}
    return [name for name, p in block.named_parameters() if name in found and p.requires_grad and p.numel()]


def _sharing(model: nn.Module, prefix: str) -> tuple[set[str], set[int]]:
    """The blocks, by number, that are tied to another or read a structure in one; the ids of parameters so read."""
    readers: dict[int, set[str]] = {}
    blocks, read = set[str](), set[int]()
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, StructuredLinear | StructuredEmbedding | Tied):
            inside = name.startswith(prefix + ".")
            block = name[len(prefix) + 1 :].split(".")[0] if inside else ""
            readers.setdefault(id(module.structure), set()).add(block)
            owners = [part.owner for part in module.structure.modules() if isinstance(part, Shared)]
            blocks |= {block for _ in owners}
            read |= {id(p) for owner in owners for p in owner.parameters()}
    return blocks.union(*(found for found in readers.values() if len(found) > 1)), read


def _exact(tensor: Tensor) -> Tensor:
    """In float32 where it is a narrower float."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor


def _exact_tree(value: Any) -> Any:
    """`_exact` of all tensors in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return _exact(value)
    if type(value) in (tuple, list):
        return type(value)(map(_exact_tree, value))
    return {name: _exact_tree(v) for name, v in value.items()} if type(value) is dict else value
