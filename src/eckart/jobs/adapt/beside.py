"""Whether the matrices that an adapter comes to stand beside are those that it was trained beside."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eckart.jobs.adapt.adapted import Adapted

PROBES = 8
ALIKE = 0.5
"""Relative differences below it are those of a compressed or a tuned version of the same model; matrices that have
nothing to do with each other differ by about 1.4."""


@torch.no_grad()
def fingerprint(place: Adapted) -> list[float]:
    """A few numbers of W (out, in) without adapters, which differ relatively about as much as matrices do."""
    structure = place.without()
    out, columns = structure.shape
    outputs = structure.forward(_waves(columns).to(structure.dtype).to(structure.device)).cpu().double()
    found: list[float] = (outputs * _waves(out)).sum(1).tolist()
    return found


def check_beside(places: Mapping[str, Adapted], before: Mapping[str, object], source: Path) -> None:
    """Warns where an adapter was trained beside other matrices, as far as fingerprints tell.

    Args:
        places: where it stands now, by name.
        before: the fingerprints of what it was trained beside, None or anything else where there is none.
        source: of the adapter, for the message.
    """
    differences = {}
    for name, known in before.items():
        if not isinstance(known, list) or not all(isinstance(each, float) for each in known) or len(known) != PROBES:
            continue
        now, then = (torch.tensor(each, dtype=torch.float64) for each in (fingerprint(places[name]), known))
        if float(then.norm()) > 0 and torch.isfinite(now).all() and torch.isfinite(then).all():
            differences[name] = float((now - then).norm() / then.norm())
    if not differences:
        return
    middle = sorted(differences.values())[len(differences) // 2]
    if middle > ALIKE:
        worst = max(differences, key=differences.__getitem__)
        warnings.warn(
            f"{source} was trained beside other matrices than those of this model: half of them differ by "
            f"{min(middle, 9.99):.0%} or more ({worst} by {min(differences[worst], 9.99):.0%}). Is it for this model?",
            stacklevel=4,
        )


def _waves(size: int) -> Tensor:
    """Vectors (PROBES, size) of unit variance that are nearly orthogonal to each other and to anything regular."""
    steps = torch.tensor([math.sqrt(p) % 1.0 for p in (2, 3, 5, 7, 11, 13, 17, 19)], dtype=torch.float64)
    places = torch.arange(1, size + 1, dtype=torch.float64)
    return math.sqrt(2.0) * torch.cos(2 * math.pi * (steps[:, None] * places**2 % 1.0))
