"""Hidden states side by side: how the blocks of a dense model are called, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.sharing import share
from eckart.models.sites import Site
from eckart.ops.wide_products import WideProducts
from eckart.statistics.batches import Batch, call
from eckart.statistics.padding import without_padding

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Observed:
    """The dense model at work: what a pass over the blocks of a compressed one compares with.

    Attributes:
        dense: the model, sharing its tensors.
        prefix: name of its list of blocks.
        batches: what it was run on, without padding.
        calls: how each block is called on each batch, hidden states aside.
        hidden: the hidden states that the first block gets, by batch.
    """

    dense: nn.Module
    prefix: str
    batches: Sequence[Batch]
    calls: list[list[Call]]
    hidden: list[Tensor]

    def blocks(self, model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        """Each block of the dense model with its counterpart in `model`."""
        names = [f"{self.prefix}.{b}" for b in range(len(self.calls))]
        return [(self.dense.get_submodule(name), model.get_submodule(name)) for name in names]


@torch.no_grad()
def observe(model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch]) -> Observed:
    """Runs a dense model over the batches and keeps what a pass over the blocks needs of that.

    Raises:
        Refused: the model has no list of blocks, or does more between them than to hand on what one returns; or a
            batch has padding that cannot be left out.
    """
    prefix, count = blocks_of(model, sites)
    for site in sites:
        if site.name.startswith(prefix + ".") and site.is_convolution:
            raise Refused(
                f"{site.name} is a convolution, and blocks of images cannot be worked on one by one: leave out "
                "sequential and heal, or exclude it"
            )
    batches = [part for batch in batches for part in without_padding(model, batch)]
    calls, hidden = _record(model, prefix, count, batches)
    return Observed(share(model), prefix, batches, calls, hidden)


@torch.no_grad()
def entering(model: nn.Module, observed: Observed) -> list[Tensor]:
    """The hidden states, by batch, that the first block gets from a compressed model, its embeddings included."""
    hidden: list[Tensor] = []

    def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden.append(arguments[0] if arguments else keywords["hidden_states"])
        raise Stop

    first = model.get_submodule(f"{observed.prefix}.0")
    with first.register_forward_pre_hook(hook, with_kwargs=True):
        for batch in observed.batches:
            with suppress(Stop):
                call(model, batch)
    return hidden


def blocks_of(model: nn.Module, sites: Sequence[Site]) -> tuple[str, int]:
    """The ModuleList that holds the most sites: its name and length."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    counts = [(sum(s.name.startswith(n + ".") for s in sites), -len(n), n, len(m)) for n, m in lists]
    if not counts or max(counts)[0] == 0:
        raise Refused(f"{type(model).__name__} has no list of blocks, so it cannot be worked on block by block")
    _, _, name, length = max(counts)
    return name, length


def _record(
    model: nn.Module, prefix: str, count: int, batches: Sequence[Batch]
) -> tuple[list[list[Call]], list[Tensor]]:
    """How each block is called on each batch, hidden states aside, and the hidden states the first one gets."""
    calls: list[list[Call]] = [[] for _ in range(count)]
    first: list[Tensor] = []
    returned: dict[int, Tensor] = {}

    def before(index: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            keywords = dict(keywords)
            hidden = arguments[0] if arguments else keywords.pop("hidden_states")
            if index == 0:
                first.append(hidden)
            elif index - 1 not in returned or not torch.equal(returned.pop(index - 1), hidden):
                raise Refused(
                    f"{prefix}.{index} of {type(model).__name__} does not take what {prefix}.{index - 1} returns, so "
                    "it cannot be worked on block by block"
                )
            calls[index].append((arguments[1:], keywords))

        return hook

    def after(index: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            returned[index] = hidden_of(output)

        return hook

    handles = []
    for i in range(count):
        block = model.get_submodule(f"{prefix}.{i}")
        handles.append(block.register_forward_pre_hook(before(i), with_kwargs=True))
        handles.append(block.register_forward_hook(after(i)))
    try:
        for batch in batches:
            call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls, first


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns: all of it, or the first of several things."""
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    return hidden


class Stop(Exception):
    """Ends a forward pass once what was wanted from it is there."""


def forward(
    block: nn.Module, hidden: Sequence[Tensor], calls: Sequence[Call], names: Sequence[str], stop: bool = False
) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """Runs a block over all batches; returns its outputs and the inputs of the named modules inside."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen[name].append(arguments[0])
            if stop:
                raise Stop

        return hook

    handles = [block.get_submodule(name).register_forward_pre_hook(record(name)) for name in names]
    outputs: list[Tensor] = []
    try:
        for h, (arguments, keywords) in zip(hidden, calls, strict=True):
            try:
                with WideProducts():
                    output = block(h, *arguments, **keywords)
            except Stop:
                continue
            outputs.append(hidden_of(output))
    finally:
        for handle in handles:
            handle.remove()
    return outputs, seen
