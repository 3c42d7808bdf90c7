"""How important numbers are while they train, and how many of them are left."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DECAY = 0.85
"""Of the moving averages of the sensitivity and of its spread."""


def averages(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the moving averages of some leaves start, by their names: what `observe` goes on from."""
    return {
        f"{name}/{kind}": torch.zeros_like(leaf, requires_grad=False)
        for name, leaf in leaves.items()
        for kind in ("average", "spread")
    }


def observe(state: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
    """Enters the gradients of a step: moving averages of |w dloss/dw| and of how far that is from its average.

    AdaLoRA (Zhang 2023, arXiv 2303.10512), section 3.2. A leaf without a gradient has no sensitivity.
    """
    for name, leaf in leaves.items():
        sensitivity = torch.zeros_like(leaf) if leaf.grad is None else (leaf * leaf.grad).abs()
        average, spread = state[f"{name}/average"], state[f"{name}/spread"]
        average.mul_(DECAY).add_(sensitivity, alpha=1 - DECAY)
        spread.mul_(DECAY).add_((sensitivity - average).abs(), alpha=1 - DECAY)


def importance(state: Mapping[str, Tensor], name: str) -> Tensor:
    """How important each number of a leaf is: the product of both averages (section 3.2)."""
    return state[f"{name}/average"] * state[f"{name}/spread"]


def surplus(done: int, begin: int, end: int) -> float:
    """Which part of what is beyond a target is left after so many steps: all up to `begin`, none from `end` on.

    In between it falls as a cube (section 3.3).
    """
    if done <= begin:
        return 1.0
    return float(max(0.0, 1 - (done - begin) / max(1, end - begin)) ** 3)
