"""Intruder dimensions of a whole model, scaled down."""

from __future__ import annotations

import torch
from torch import nn

from eckart.diagnostics.intruder_dimensions import mitigate
from eckart.errors import Refused, check_type
from eckart.jobs.diagnose.matrices import pairs
from eckart.models.dense import densified, unpacked
from eckart.models.presence import present
from eckart.models.sites import find_sites
from eckart.progress import Progress, shown
from eckart.statistics.cache import finite_weights


@torch.no_grad()
def mitigate_intruders(
    model: nn.Module, base: nn.Module, scale: float, *, k: int = 10, threshold: float = 0.5, progress: Progress = shown
) -> dict[str, int]:
    """Scales the intruder dimensions of every linear map of a fine-tuned model, in place.

    An intruder is a leading direction of a matrix that the model it came from does not have (Shuttleworth et al. 2024);
    its singular value is multiplied by `scale`.

    Args:
        model: a dense model.
        base: what it was fine-tuned from.
        scale: what their singular values are multiplied by, in [0, 1].
        k: how many of a matrix's leading directions are looked at.
        threshold: a direction is an intruder where its cosine with every direction of the base is below, in (0, 1].
        progress: told of the phase "mitigate".

    Returns:
        The intruders that there were, by matrix.

    Raises:
        Refused: models that do not match, weights that are not finite, or a bad scale, k or threshold.
    """
    present(model)
    present(base, "the base")
    for name, value, kind in (("scale", scale, float), ("k", k, int), ("threshold", threshold, float)):
        check_type(name, value, kind)
    if not 0 <= scale <= 1 or k < 1 or not 0 < threshold <= 1:
        raise Refused(f"scale={scale}, k={k} and threshold={threshold} must be in [0, 1], at least 1 and in (0, 1]")
    matched = pairs(find_sites(unpacked(model)), densified(base))
    finite_weights({site.name: site.module for site, _ in matched})
    counts = {}
    for done, (site, other) in enumerate(matched, 1):
        weight = site.weight
        if torch.equal(weight, other.weight):
            counts[site.name] = 0
        else:
            changed, counts[site.name] = mitigate(other.weight.cpu(), weight.cpu(), scale, k=k, threshold=threshold)
            weight.copy_(changed)
        progress("mitigate", done, len(matched))
    return counts
