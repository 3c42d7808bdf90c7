"""The matrices of a model that are looked at, dense or compressed, and those of two models side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from eckart.errors import Refused
from eckart.models.filters import filters
from eckart.models.modules import StructuredEmbedding, StructuredLinear, Tied
from eckart.models.places import set_module
from eckart.models.sharing import share
from eckart.models.sites import Site, find_sites


def densified(model: nn.Module) -> nn.Module:
    """The model with an ordinary layer in the place of every structured one; itself where there are none.

    The copy shares all other tensors, and tied layers share their matrix.
    """
    kinds = StructuredLinear | StructuredEmbedding | Tied
    structured = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    if not structured:
        return model
    twin = share(model)
    weights: dict[int, nn.Parameter] = {}
    for name, module in structured.items():
        key = id(module.structure)
        if key not in weights:
            weights[key] = nn.Parameter(module.structure.to_dense().detach(), requires_grad=False)
        rows, columns = module.structure.shape
        bias = getattr(module, "bias", None)
        if hasattr(module, "bias"):
            layer: nn.Module = nn.Linear(columns, rows, bias=bias is not None, device="meta")
            if bias is not None:
                layer.bias = bias
        else:
            layer = nn.Embedding(rows, columns, device="meta")
        layer.weight = weights[key]
        set_module(twin, name, layer)
    return twin


def look_at(model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Site]:
    """All matrices of a model in module order, embeddings and head among them; see `find_sites`."""
    return find_sites(model, include, exclude, embeddings=True, head=True)


def layer_type(site: Site) -> str:
    """The kind of a layer in WeightWatcher's words: embedding, conv2d or dense."""
    return "embedding" if site.is_embedding else "conv2d" if filters(site).ndim > 2 else "dense"


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
