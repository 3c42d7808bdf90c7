"""Rates and weight decays that were found at one width, taken to another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.optim.contract import optimizer


@optimizer(
    "weight-decay-scaling",
    paper="Fan 2025, arXiv 2510.15262",
    expression="matrices: lr d0/d, decay sqrt(d/d0); vectors: lr, decay 0",
    state="nothing",
)
def at_width(groups: Iterable[Mapping[str, Any]], *, base: int, width: int) -> list[dict[str, Any]]:
    """Groups for AdamW whose rates and decays, found at width d0, are those for width d.

    What grows in both dimensions takes lr d0 / d and weight_decay sqrt(d / d0), so that the largest singular value of
    its steady state, about sqrt(lr / decay) d^0.75, stays where it is; everything else keeps its rate and has no
    decay. The decay is decoupled and times the rate, as in torch's AdamW. `sublayer_gains` at both widths shows whether
    it did; both have to be trained for longer than 1 / (lr decay) steps, before which there is no steady state.

    Args:
        groups: as `eckart.optim.groups` makes them: those with `rule="adamw"` are the rest. Each has a rate.
        base: d0, at which rates and decays were found.
        width: d.

    Returns:
        new groups of the same parameters.

    Raises:
        Refused: a width below 1, a group of matrices without a rate or a decay of its own.
    """
    if base < 1 or width < 1:
        raise Refused(f"base={base} and width={width} must be at least 1")
    found = []
    for group in groups:
        if group.get("rule", "matrix") == "adamw":
            found.append({**group, "weight_decay": 0.0})
            continue
        missing = [name for name in ("lr", "weight_decay") if name not in group]
        if missing:
            raise Refused(f"a group of matrices says no {' and no '.join(missing)}: nothing is there to be scaled")
        ratio = width / base
        found.append({**group, "lr": group["lr"] / ratio, "weight_decay": group["weight_decay"] * ratio**0.5})
    return found


@torch.no_grad()
def sublayer_gains(model: nn.Module) -> dict[str, float]:
    """The largest singular value of every matrix of a model, in float64, by the name of its parameter.

    Filters of convolutions are the matrix (out, rest). Equal gains at two widths are what `at_width` aims at.
    """

    def gain(weight: Tensor) -> float:
        return float(torch.linalg.matrix_norm(weight.detach().cpu().double().reshape(len(weight), -1), ord=2))

    return {name: gain(each) for name, each in model.named_parameters() if each.ndim > 1 and each.numel()}
