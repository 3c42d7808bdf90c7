"""Optim: optimizers that use the structure of a gradient that is a matrix, one paper a file.

Each is a `torch.optim.Optimizer` over a rule that can be read by itself: `eckart.optim.GaLore(model.parameters())`.
"""

from typing import Any

from eckart.optim.contract import OPTIMIZERS

__all__ = ["OPTIMIZERS"]


def __getattr__(name: str) -> Any:
    if name[:1].isupper():
        for card in OPTIMIZERS.values():
            if card.entry.__name__ == name:
                return card.entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(card.entry.__name__ for card in OPTIMIZERS.values() if card.entry.__name__[0].isupper())]
