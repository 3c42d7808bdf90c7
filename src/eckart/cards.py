"""What `eckart methods` prints: the registers as tables, and the card of one method."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from rich.table import Table

from eckart.methods import ADAPTERS, METHODS
from eckart.methods.results import measured, results
from eckart.statistics.needs import Need


def needed(needs: Sequence[Need], task_gradient: bool = False) -> str:
    """What a method asks to know, in words."""
    return ", ".join([need.value for need in needs] + ["gradient of the loss"] * task_gradient) or "nothing"


def tables() -> list[Table]:
    """A table of all methods, and one of all adapters."""
    methods = Table("method", "what it does", "makes", "needs", "paper")
    for name, card in sorted(METHODS.items()):
        methods.add_row(name, card.summary, card.expression, needed(card.needs), card.paper)
    adapters = Table("adapter", "what it does", "makes", "needs", "paper")
    for name, adapter in sorted(ADAPTERS.items()):
        needs = needed(adapter.needs, adapter.task_gradient)
        adapters.add_row(name, adapter.summary, adapter.expression, needs, adapter.paper)
    return [methods, adapters]


def method_card(name: str) -> str:
    """Paper, words and measured results of a method."""
    text = inspect.cleandoc(METHODS[name].fit.__doc__ or "").split("\nArgs:\n")[0].split("\nRaises:\n")[0].strip()
    return _card(METHODS[name].paper, text, "methods", name)


def adapter_card(name: str) -> str:
    """Paper, words and measured results of an adapter."""
    return _card(ADAPTERS[name].paper, inspect.cleandoc(ADAPTERS[name].start.__doc__ or "").strip(), "adapters", name)


def _card(paper: str, text: str, kind: str, name: str) -> str:
    lines = [f"*{paper}*", "", text]
    if found := results(kind, name):
        lines += ["", "Measured:", "", *(f"- {row}" for row in found)]
    return "\n".join(lines)


def printed(name: str) -> str:
    """The cards of that name, of a method and of an adapter, with the conditions of what was measured.

    Raises:
        ValueError: there is neither.
    """
    parts = []
    for kind, register, card in (("methods", METHODS, method_card), ("adapters", ADAPTERS, adapter_card)):
        if name in register:
            about = f"\n\nConditions: {measured(kind)['title']}." if results(kind, name) else ""
            parts.append(f"{name}, {register[name].expression}\n{card(name)}{about}")
    if not parts:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(sorted({*METHODS, *ADAPTERS}))}")
    return "\n\n".join(parts)
