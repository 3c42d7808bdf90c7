"""Which matrices of a model a recipe takes, and why it leaves the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from eckart.compressors.contract import CompressorCard
from eckart.errors import Refused
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.coverage import coverage
from eckart.models.sites import Site, all_sites, find_sites
from eckart.report.types import Coverage
from eckart.statistics import Statistics
from eckart.statistics.accumulators import GRADIENT_NEEDS
from eckart.statistics.cache import finite_weights


def sites_of(model: nn.Module, recipe: Recipe) -> list[Site]:
    """The matrices a recipe is about; Refused where a pattern matches none, or weights are not finite."""
    sites = find_sites(
        model, recipe.include, recipe.exclude, embeddings=recipe.takes_embeddings, head=recipe.takes_head
    )
    finite_weights({site.name: site.module for site in sites})
    return sites


def covered_by(model: nn.Module, recipe: Recipe, left: Mapping[str, str] | None = None) -> Coverage:
    """What a recipe takes of a model, and what it leaves and why; `left` are further reasons by name."""
    taken = [site for site in sites_of(model, recipe) if site.name not in (left or {})]
    return coverage(model, taken, embeddings=recipe.takes_embeddings, head=recipe.takes_head, left=left)


def untaken(model: nn.Module, sites: Sequence[Site]) -> str:
    """The options by which more of a model would be taken, as part of a sentence; "" where there are none."""
    names = {name for site in sites for name in (site.name, *site.tied)}
    inner = {site.name for site in all_sites(model, embeddings=False, head=False)}
    more = {
        "--embeddings": all_sites(model, embeddings=True, head=False),
        "--head": all_sites(model, embeddings=False, head=True),
    }
    words = [word for word, found in more.items() if {site.name for site in found} - inner - names]
    return f" without {' and '.join(words)}" if words else ""


UNREACHED = "the model did not call it on the calibration data, so that nothing is known of its inputs"


UNUSED = "what the model returns first does not depend on it, so that nothing is known of its gradients"


def unreached(sites: Sequence[Site], method: CompressorCard, statistics: Mapping[str, Statistics]) -> dict[str, str]:
    """Why matrices of which a method would have to know something, and knows nothing, stay dense; by name.

    Raises:
        Refused: that are all of them.
    """
    read = [need.value for need in method.needs]
    gradients = [need.value for need in method.needs if need in GRADIENT_NEEDS]
    known = {s.name for s in sites if any(getattr(statistics[s.name], each) is not None for each in read)}
    if read and not known:
        raise Refused(f"the model calls none of the matrices on the calibration data ({sites[0].name} is the first)")
    unused = {s.name for s in sites if any(getattr(statistics[s.name], each) is None for each in gradients)}
    return {s.name: UNUSED if s.name in known else UNREACHED for s in sites if read and s.name not in known - unused}
