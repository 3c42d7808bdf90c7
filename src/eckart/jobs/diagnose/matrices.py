"""The matrices of a model that are looked at, dense or compressed, and those of two models side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from eckart.errors import Refused
from eckart.models.sites import Site, find_sites


def look_at(model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Site]:
    """All matrices of a model in module order, embeddings and head among them; see `find_sites`."""
    return find_sites(model, include, exclude, embeddings=True, head=True)


def layer_type(site: Site) -> str:
    """The kind of a layer in WeightWatcher's words: embedding, conv1d, conv2d or dense."""
    if site.is_embedding:
        return "embedding"
    return type(site.module).__name__.lower() if site.is_convolution else "dense"


def pairs(sites: Sequence[Site], base: nn.Module) -> list[tuple[Site, Site]]:
    """Each matrix with the one of the same name in another model.

    Raises:
        Refused: the other model has no matrix of a name, or one of another shape.
    """
    others = {name: site for site in look_at(base) for name in (site.name, *site.tied)}
    missing = [site.name for site in sites if site.name not in others]
    if missing:
        raise Refused(
            f"the models do not match: the other one has no matrix {missing[0]}"
            + (f", nor {len(missing) - 1} more" if len(missing) > 1 else "")
            + f"; its first is {next(iter(others))}"
        )
    for site in sites:
        if site.shape != others[site.name].shape:
            raise Refused(
                f"the models do not match: {site.name} is {site.shape} in one and {others[site.name].shape} in the "
                "other; exclude it, if only that differs"
            )
    return [(site, others[site.name]) for site in sites]
