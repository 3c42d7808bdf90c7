"""Optim: optimizers that use the structure of a gradient that is a matrix, one paper a file.

Most are a `torch.optim.Optimizer` over a rule that can be read by itself: `optim.Muon(optim.groups(model))`.
"""

from typing import Any

from eckart.optim._groups import OTHER, check_groups, groups, state_bytes
from eckart.optim.contract import OPTIMIZERS

__all__ = ["OPTIMIZERS", "OTHER", "check_groups", "groups", "state_bytes"]


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for card in OPTIMIZERS.values():
            if card.entry.__name__ == name:
                return card.entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(card.entry.__name__ for card in OPTIMIZERS.values())]
