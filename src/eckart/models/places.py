"""Putting modules in the places of others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.look_ups import scale_of
from eckart.models.convolution import embedding_stand_in, stand_in
from eckart.models.modules import (
    StructuredEmbedding,
    StructuredLinear,
    TiedEmbedding,
    TiedLinear,
    tied_by_construction,
)
from eckart.models.sites import Site
from eckart.models.weights import Readable
from eckart.structures.base import StructuredMatrix


def replace(model: nn.Module, site: Site, structure: StructuredMatrix, bias: Tensor | None = None) -> None:
    """Puts a structure where the site's matrix was; tied modules read the same structure and keep their own biases.

    Args:
        model: changed in place.
        site: where; it may have been replaced before.
        structure: of the site's shape; it is moved to the site's device.
        bias: (out,), added to the layer's own bias, if any.

    Raises:
        Refused: the structure has another shape.
    """
    if structure.shape != site.shape:
        raise Refused(f"{site.name}: a structure of shape {structure.shape} cannot replace {site.shape}")
    device, own = site.weight.device, site.bias
    structure = structure.to(device)
    total = own if bias is None else bias.to(device) if own is None else own + bias.to(own)
    owner: StructuredEmbedding | StructuredLinear = (
        embedding_stand_in(structure, site.module)
        if isinstance(site.module, nn.Embedding)
        else stand_in(structure, total, site.module)
    )
    places = {name: model.get_submodule(name) for name in (site.name, *site.tied)}
    new: dict[int, nn.Module] = {id(places[site.name]): owner}
    for name, old in places.items():
        if id(old) not in new:
            table = isinstance(old, nn.Embedding | TiedEmbedding)
            new[id(old)] = _tied_table(owner, old) if table else TiedLinear(owner, getattr(old, "bias", None))
        _keep_hooks(old, new[id(old)])
        set_module(model, name, new[id(old)])
    if len(new) > 1:
        tied_by_construction(model)


def _tied_table(owner: StructuredEmbedding | StructuredLinear, old: nn.Module) -> TiedEmbedding:
    if isinstance(old, TiedEmbedding):
        return TiedEmbedding(owner, old.scale, old.padding_idx)
    assert isinstance(old, nn.Embedding)
    return TiedEmbedding(owner, scale_of(old), old.padding_idx)


def _keep_hooks(old: nn.Module, new: nn.Module) -> None:
    """What others hung on a layer hangs on what stands there now, and comes off by the handles that they have."""
    for name in vars(new):
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and "state_dict" not in name:
            setattr(new, name, getattr(old, name))


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """`model.<name> = module`, with the training flag of what stood there, and told its name.

    Where accelerate has spread the model, inputs go on being brought to where the module is.
    """
    parent, _, leaf = name.rpartition(".")
    before: Any = model.get_submodule(name)
    module.train(before.training)
    if hasattr(before, "_hf_hook"):
        from accelerate.hooks import add_hook_to_module

        add_hook_to_module(module, before._hf_hook)
    setattr(model.get_submodule(parent), leaf, module)
    if isinstance(module, Readable):
        module.where = name
        _call_layers(model, name)


def _call_layers(model: nn.Module, name: str) -> None:
    """Keeps torch's encoders around a module from packing sequences for kernels that only ordinary weights have."""
    parts = name.split(".")
    for i in range(len(parts)):
        outer = model.get_submodule(".".join(parts[:i]))
        if isinstance(outer, nn.TransformerEncoder):
            outer.use_nested_tensor = False


def asking(model: nn.Module) -> dict[str, bool]:
    """Whether parameters ask for gradients: each, and any that is no bias in each module, by name."""
    each = {name: p.requires_grad for name, p in model.named_parameters()}
    found: dict[str, bool] = {}
    for name, asks in each.items():
        parts = name.split(".")
        if parts[-1] != "bias":
            for end in range(len(parts)):
                where = ".".join(parts[:end])
                found[where] = found.get(where, False) or asks
    return found | each


def keep_frozen(model: nn.Module, before: dict[str, bool]) -> None:
    """Freezes what stands where nothing asked for gradients.

    Args:
        model: some of whose modules were replaced.
        before: what `asking` said of it.
    """
    for name, p in model.named_parameters():
        while name and name not in before:
            name = name.rpartition(".")[0]
        if not before.get(name, True):
            p.requires_grad_(False)
