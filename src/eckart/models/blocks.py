"""Which matrices make one module of a transformer block: an MLP, a pair of query and key, a pair of value and output.

Modules are known by how their matrices are called. What does more between two matrices than these modules do makes
no module here: a norm of hidden units, or of the heads of queries and keys (Qwen3, Gemma 3), which mixes the units
that are to be taken apart; a gate on what attention writes; sinks that take a part of the attention.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from eckart.layouts.attention_heads import Heads
from eckart.models.sites import Site

MLP = (
    ("gate_proj", "up_proj", "down_proj"),
    ("up_proj", "down_proj"),
    ("fc1", "fc2"),
    ("c_fc", "c_proj"),
    ("intermediate.dense", "output.dense"),
)
"""Matrices that read the input of an MLP, then the one that reads its hidden units."""

ATTENTION = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "dense"),
    ("self.query", "self.key", "self.value", "output.dense"),
)
"""Query, key, value and output."""


def mlps(model: nn.Module, sites: Mapping[str, Site]) -> list[tuple[Site, ...]]:
    """The matrices of each MLP, in the order of `MLP`; hidden unit i is output i of all but the last."""
    found: list[tuple[Site, ...]] = []
    known = {role for roles in MLP for role in roles}
    for roles in MLP:
        for prefix in _prefixes(sites, roles[0]):
            names = [prefix + role for role in roles]
            if any(site.name in names for group in found for site in group):
                continue
            members = tuple(sites[name] for name in names if name in sites and not sites[name].tied)
            if len(members) < len(roles) or {m.shape[0] for m in members[:-1]} != {members[-1].shape[1]}:
                continue
            holder = model.get_submodule(prefix.rstrip("."))
            if not (_norms(holder) and _matrices(holder) <= known):  # the norms of a whole layer stand elsewhere
                found.append(members)
    return found


def query_keys(model: nn.Module, sites: Mapping[str, Site]) -> list[tuple[tuple[Site, Site], Heads]]:
    """Query and key of each attention, and its heads; none where a norm stands between them and their product."""
    found = []
    for attention, (query, key, *_) in _attentions(model, sites):
        if query is None or key is None or _norms(attention):
            continue
        rotary = _rotary(model, attention)
        heads = _heads(attention, query.shape[0], key.shape[0], rotary) if rotary is not None else None
        if heads:
            found.append(((query, key), heads))
    return found


def value_outputs(model: nn.Module, sites: Mapping[str, Site]) -> list[tuple[tuple[Site, Site], Heads]]:
    """Value and output of each attention, and its heads."""
    found = []
    for attention, (_, _, value, output) in _attentions(model, sites):
        if value is None or output is None or any(name[0] not in "qk" for name in _norms(attention)):
            continue
        heads = _heads(attention, output.shape[1], value.shape[0], 0)
        if heads:
            found.append(((value, output), heads))
    return found


def _prefixes(names: Mapping[str, object], role: str) -> list[str]:
    return [name[: -len(role)] for name in names if name == role or name.endswith("." + role)]


def _attentions(model: nn.Module, sites: Mapping[str, Site]) -> Iterator[tuple[nn.Module, list[Site | None]]]:
    """Modules that hold four matrices of these names and no other, and those of the four that are free."""
    modules = dict(model.named_modules())
    for roles in ATTENTION:
        for prefix in _prefixes(modules, roles[0]):
            holder = modules[prefix.rstrip(".")]
            inner = modules[(prefix + roles[0]).rpartition(".")[0]]
            own = inner._parameters or holder._parameters
            if _matrices(holder) == set(roles) and not own:
                free = [sites.get(prefix + role) for role in roles]
                yield inner, [None if site is None or site.tied else site for site in free]


def _matrices(holder: nn.Module) -> set[str]:
    """Names of what holds a matrix inside a module."""
    return {name.rpartition(".")[0] for name, p in holder.named_parameters() if p.ndim > 1}


def _norms(holder: nn.Module) -> list[str]:
    children = holder.named_children()
    return [name for name, child in children if "norm" in f"{name} {type(child).__name__}".lower()]


def _heads(attention: nn.Module, queries: int, keys: int, rotary: int) -> Heads | None:
    sizes = {getattr(attention, name, None) for name in ("head_dim", "attention_head_size")} - {None}
    size = sizes.pop() if len(sizes) == 1 else None
    if not isinstance(size, int) or queries % size or keys % size or queries % keys:
        return None
    return Heads(queries // size, keys // size, size, rotary)


def _rotary(model: nn.Module, attention: nn.Module) -> int | None:
    """Outputs of a head that are rotated in pairs (i, i + half of them); None where they are paired otherwise."""
    file = type(attention).__module__
    named = vars(sys.modules[file])
    if not any("rotary" in name.lower() for name in named):
        return 0
    rotate = named.get("rotate_half")
    if rotate is None or rotate(torch.arange(4.0)).tolist() != [-2.0, -3.0, 0.0, 1.0]:
        return None
    own = [module for module in model.modules() if type(module).__module__ == file]
    buffers = [b for module in own for name, b in module.named_buffers(recurse=False) if name.endswith("inv_freq")]
    counts = {2 * b.numel() for b in buffers}
    return None if len(counts) > 1 else max(counts, default=0)
