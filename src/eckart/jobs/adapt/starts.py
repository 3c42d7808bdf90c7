"""What an adapter begins with beside each layer, and the layers that it cannot begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from eckart.adapters.contract import AdapterCard, Layer, Start
from eckart.errors import Refused
from eckart.statistics import Statistics
from eckart.statistics.accumulators import GRADIENT_NEEDS
from eckart.structures import Scaled

UNREACHED = "the model did not call it on the calibration data, which the method has to look at"


def unknown(
    bases: Mapping[str, nn.Module],
    card: AdapterCard,
    statistics: Mapping[str, Statistics],
    gradients: Mapping[str, Tensor],
) -> dict[str, str]:
    """Why layers of which a method has to know something, and knows nothing, get no adapter; by name."""
    needs = [need.value for need in card.needs]
    return {
        where: UNREACHED
        for where in bases
        if (needs and all(getattr(statistics[where], each) is None for each in needs))
        or (card.task_gradient and where not in gradients)
    }


def without_gradient(
    bases: Iterable[str], card: AdapterCard, statistics: Mapping[str, Statistics], gradients: Mapping[str, Tensor]
) -> list[str]:
    """What is to be said of layers that no gradient reaches, where a method starts from gradients."""
    needs = [need.value for need in card.needs if need in GRADIENT_NEEDS]

    def flat(where: str) -> bool:
        known = [getattr(statistics[where], each) for each in needs]
        known += [gradients[where]] if card.task_gradient else []
        return any(each is not None and not each.any() for each in known)

    found = [where for where in bases if flat(where)]
    if not found:
        return []
    return [
        f"no gradient reaches {len(found)} matrices ({found[0]}), so that {card.name} starts there as if nothing were "
        "known of them: is the model's head zero, or what it returns first cut off from them?"
    ]


def started(card: AdapterCard, where: str, layer: Layer) -> Start | None:
    """The start of one layer, multiplied by its scale, or None; Refused that names the layer."""
    try:
        start = card.entry(layer)
    except Refused as error:
        raise Refused(f"{where}: {error}") from error
    if start is None or layer.scale == 1.0:
        return start
    return replace(start, path=Scaled(start.path, scale=layer.scale))


def check_starts(card: AdapterCard, starts: Mapping[str, Start], parameters: int | None) -> None:
    """Raises Refused where an adapter found no matrix that it can train, or trains more numbers than it may."""
    if not starts:
        raise Refused(f"{card.name} found no matrix in this model that it can train: {card.summary}")
    total = sum(p.numel() for start in starts.values() for p in start.path.parameters() if p.requires_grad)
    if parameters is not None and total > parameters:
        raise Refused(f"parameters={parameters} is less than the {total} that {card.name} trains")


@torch.no_grad()
def at_start(start: Start) -> Tensor:
    """The path of a start as a matrix; zero for one that is none, and so cannot be taken out of W."""
    return start.path.to_dense() if start.path.linear else torch.zeros(start.path.shape, dtype=start.path.dtype)


@torch.no_grad()
def relative_error(before: Tensor, after: Tensor, path: Tensor) -> float:
    """||before - (after + path)||_F / ||before||_F, up to rounding in the dtype of the path."""
    difference = path
    if before.data_ptr() != after.data_ptr():
        # The first difference of near numbers is exact, so what is left is the rounding of what was stored.
        difference = torch.sub(after.to(path.dtype), before.to(path.dtype)).add_(path)
    size = float(torch.linalg.matrix_norm(before.to(path.dtype)))
    return float(torch.linalg.matrix_norm(difference)) / size if size > 0 else 0.0
