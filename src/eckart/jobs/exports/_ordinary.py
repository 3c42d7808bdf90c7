"""Ordinary matrices in the places of structured ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.fused_experts import fuse, taken_apart, unfuse_named
from eckart.models.modules import StructuredEmbedding, StructuredLinear, Tied
from eckart.models.places import set_module
from eckart.models.sites import Site

_BIAS_FLAGS = ("attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_qkv_bias", "add_bias_linear", "bias")
"""Fields of configurations that give linear maps a bias."""


def made_dense(model: Any) -> bool:
    """Gives a model ordinary matrices, in place; returns whether it had others.

    Raises:
        Refused: it has biases that its architecture has no place for.
    """
    kinds = StructuredLinear | StructuredEmbedding | Tied
    structured = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    apart = taken_apart(model)
    model.config, skeleton = skeleton_of(model, [n for n, m in structured.items() if own_bias(m) is not None])
    names = {id(module): name for name, module in structured.items()}
    for name, place in skeleton.named_modules():
        if name in structured:
            _fill(place, structured[name])
            set_module(model, name, place)
        elif own_bias(place) is not None and own_bias(model.get_submodule(name)) is None:
            dense = model.get_submodule(name)
            dense.bias = nn.Parameter(torch.zeros(own_bias(place).shape, dtype=dense.weight.dtype))
    for name, module in structured.items():
        if isinstance(module, Tied):
            owner = names[id(module.owner)]
            model.get_submodule(name).weight = model.get_submodule(owner).weight
    for ties in ("_tied_weights_keys", "all_tied_weights_keys"):
        if hasattr(skeleton, ties):
            setattr(model, ties, getattr(skeleton, ties))
    fuse(model)
    return bool(structured or apart)


def own_bias(module: nn.Module) -> Any:
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def skeleton_of(model: Any, biased: list[str]) -> tuple[Any, nn.Module]:
    """The dense architecture on the meta device, and its configuration, with a place for each of the biases."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config

    def build(config: Any) -> tuple[nn.Module, list[str]]:
        with torch.device("meta"):
            skeleton = type(model)(copy.deepcopy(config))
        unfuse_named(skeleton, taken_apart(model))
        return skeleton, [name for name in biased if own_bias(skeleton.get_submodule(name)) is None]

    skeleton, homeless = build(config)
    for flag in _BIAS_FLAGS:
        if homeless and getattr(config, flag, None) is False:
            changed = copy.deepcopy(config)
            setattr(changed, flag, True)
            candidate, left = build(changed)
            if len(left) < len(homeless):
                config, skeleton, homeless = changed, candidate, left
    if homeless:
        some = ", ".join(homeless[:3])
        raise Refused(
            f"{type(model).__name__} has no place for the biases of {len(homeless)} matrices ({some}); "
            "compress it by a method that adds none, such as svd"
        )
    return config, skeleton


def _fill(place: Any, module: Any) -> None:
    """Gives a dense module on the meta device the values of a structured one."""
    weight = module.structure.to_dense().detach()
    values = Site("", place).stored(weight)
    place.weight = nn.Parameter(values.contiguous().clone())
    if own_bias(place) is not None:
        own = own_bias(module)
        place.bias = nn.Parameter(weight.new_zeros(len(weight)) if own is None else own.detach().clone())
