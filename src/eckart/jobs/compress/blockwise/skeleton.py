"""A model without its blocks: what it does in front of them, how it calls them, and what it does behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.block_streams import Call, Stop, hidden_of
from eckart.ops.wide_products import WideProducts
from eckart.statistics.batches import Batch, call

Stub = Callable[[int, Tensor, Call], Tensor]
"""What stands for a block: its number, the hidden states that it is given, and what else; the hidden states it returns.
"""


class Skeleton:
    """A model whose blocks are called one by one, and in whose calls they need not be there.

    Args:
        model: in eval mode.
        prefix: name of its list of blocks.
        batch: any that the model can be called with.
        first: a context in which the first block is there.

    Raises:
        Refused: the model does more between its blocks than to hand on hidden states, or what else it calls a block
            with depends on those.
    """

    def __init__(self, model: nn.Module, prefix: str, batch: Batch, first: Callable[[], Any]) -> None:
        self.model = model
        self.prefix = prefix
        self._blocks: list[nn.Module] = list(model.get_submodule(prefix).children())
        self._form: tuple[Any, ...] | None = None
        self._known: list[Tensor] = []
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise Refused(
                f"the decoder of {type(model).__name__} reads more than what its blocks hand on to each other"
            )
        with torch.no_grad():
            hidden, (arguments, keywords) = self._entering(batch)
            with first(), WideProducts():
                self._form = self._form_of(self._blocks[0](hidden, *arguments, **keywords))
            self._check(batch)

    def __len__(self) -> int:
        return len(self._blocks)

    @torch.no_grad()
    def calls(self, batch: Batch) -> list[Call]:
        """How each block is called on a batch, hidden states aside; equal tensors are one."""
        found: list[Call] = []

        def note(_: int, hidden: Tensor, others: Call) -> Tensor:
            found.append((tuple(map(self._interned, others[0])), {k: self._interned(v) for k, v in others[1].items()}))
            return hidden

        with self._stubs(note):
            call(self.model, batch)
        return found

    def enter(self, batch: Batch) -> Tensor:
        """The hidden states that the first block is given."""
        return self._entering(batch)[0]

    def leave(self, batch: Batch, hidden: Tensor) -> Any:
        """What the model returns where its last block returns these hidden states."""
        with self._stubs(lambda i, given, _: hidden if i == len(self) - 1 else given):
            return call(self.model, batch)

    def noted(self, batch: Batch, hidden: Tensor) -> list[Tensor]:
        """Every tensor that blocks are called with besides hidden states, and the output where they return `hidden`."""
        found: list[Tensor] = []

        def note(_: int, __: Tensor, others: Call) -> Tensor:
            found.extend(_tensors([*others[0], *others[1].values()]))
            return hidden

        with self._stubs(note):
            output = call(self.model, batch)
        return [*found, *_tensors(list(output.values()) if isinstance(output, dict) else [output])]

    def run(self, block: nn.Module, hidden: Tensor, others: Call) -> Tensor:
        """The hidden states that a block returns."""
        with WideProducts():
            return hidden_of(block(hidden, *others[0], **others[1]))

    def _entering(self, batch: Batch) -> tuple[Tensor, Call]:
        found: list[tuple[Tensor, Call]] = []

        def note(_: int, hidden: Tensor, others: Call) -> Tensor:
            found.append((hidden, others))
            raise Stop

        with self._stubs(note), suppress(Stop):
            call(self.model, batch)
        if not found:
            raise Refused(f"{type(self.model).__name__} does not call {self.prefix}.0 first")
        return found[0]

    def _check(self, batch: Batch) -> None:
        """Whether blocks take what those before them return, and whatever that is, are called the same otherwise."""
        kind = type(self.model).__name__
        seen: list[list[Call]] = []
        for scale in (1.0, -2.0):
            returned: list[Tensor] = []
            found: list[Call] = []

            def note(
                i: int,
                hidden: Tensor,
                others: Call,
                scale: float = scale,
                returned: list[Tensor] = returned,
                found: list[Call] = found,
            ) -> Tensor:
                if i != len(found) or (i and not torch.equal(hidden, returned[-1])):
                    raise Refused(f"{self.prefix}.{i} does not take what {self.prefix}.{i - 1} returns")
                found.append(others)
                returned.append(torch.full_like(hidden, scale * (i + 1)))
                return returned[-1]

            try:
                with self._stubs(note):
                    call(self.model, batch)
            except Refused as error:
                raise Refused(f"{kind} cannot be worked on block by block: {error}") from error
            seen.append(found)
        if len(seen[0]) != len(self) or any(not _equal(a, b) for a, b in zip(*seen, strict=True)):
            raise Refused(
                f"the blocks of {kind} are given more of each other's work than hidden states, so it cannot be worked "
                "on block by block"
            )

    def _form_of(self, output: Any) -> tuple[Any, ...] | None:
        """What a block returns beside its hidden states; None where it returns those alone."""
        if isinstance(output, Tensor):
            return None
        if type(output) is tuple and isinstance(output[0], Tensor) and not any(v is not None for v in output[1:]):
            return output[1:]
        raise Refused(
            f"{self.prefix}.0 of {type(self.model).__name__} returns more than hidden states, so it cannot be worked "
            "on block by block"
        )

    def _interned(self, value: Any) -> Any:
        """A value in which tensors that are equal to earlier ones are those."""
        if isinstance(value, tuple):
            return tuple(map(self._interned, value))
        if not isinstance(value, Tensor):
            return value
        for known in self._known:
            if known is value or (known.dtype == value.dtype and torch.equal(known, value)):
                return known
        self._known.append(value.detach())
        return self._known[-1]

    @contextmanager
    def _stubs(self, stub: Stub) -> Iterator[None]:
        """Inside, a stub is called in the place of each block."""

        def standing_for(i: int) -> Callable[..., Any]:
            def forward(*arguments: Any, **keywords: Any) -> Any:
                hidden = arguments[0] if arguments else keywords.pop("hidden_states")
                output = stub(i, hidden, (arguments[1:], keywords))
                return output if self._form is None else (output, *self._form)

            return forward

        for i, block in enumerate(self._blocks):
            block.forward = standing_for(i)
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among some values, and in lists and tuples of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return isinstance(b, Sequence) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return bool(a is b or a == b)


def called(modules: Mapping[str, nn.Module], act: Callable[[], Any]) -> dict[str, int]:
    """How often modules are called by what is done, those that are."""
    counts: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            counts[name] = counts.get(name, 0) + 1

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(count(name)).remove)
        act()
    return counts
