"""Matrices of a model that belong together: which ones a method may fit as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from torch import nn

from eckart.layouts.attention_heads import Heads
from eckart.layouts.experts import Mixture
from eckart.models.blocks import mlps, query_keys, value_outputs
from eckart.models.experts import experts
from eckart.models.sites import Site

LAYERS = 2
"""Consecutive layers that form a group."""

WRITERS = ("o_proj", "out_proj", "down_proj", "c_proj", "fc2", "output.dense")
"""How matrices are called whose inputs are activations of their own layer, not the stream that all layers read."""


@dataclass(frozen=True)
class Group:
    """Matrices that are fitted together, or one alone.

    Attributes:
        name: of the first of them.
        kind: "matrix" for one alone, or a key of `KINDS`.
        sites: where they are, in the order of their roles.
        heads: of attention projections.
        mixture: of experts, whose sites come expert by expert.
        layers: how many layers they are of, whose sites come layer by layer.
    """

    name: str
    kind: str
    sites: tuple[Site, ...]
    heads: Heads | None = None
    mixture: Mixture | None = None
    layers: int = 1


def alone(site: Site) -> Group:
    return Group(site.name, "matrix", (site,))


def find_groups(model: nn.Module, sites: Sequence[Site], kinds: Sequence[str]) -> list[Group]:
    """Every site in one group: those of the kinds, as far as all of their members are among the sites, others alone.

    Args:
        model: that the sites are of.
        sites: in module order.
        kinds: keys of `KINDS`; a site that fits in several groups joins the first.

    Returns:
        In the order of their first sites.
    """
    groups: dict[str, Group] = {}
    taken: set[str] = set()
    for kind in kinds:
        free = {site.name: site for site in sites if site.name not in taken}
        for group in KINDS[kind](model, free):
            groups[group.name] = group
            taken |= {site.name for site in group.sites}
    groups |= {site.name: alone(site) for site in sites if site.name not in taken}
    order = {site.name: i for i, site in enumerate(sites)}
    return sorted(groups.values(), key=lambda group: min(order[site.name] for site in group.sites))


def _layers(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """Matrices of one name and shape in `LAYERS` consecutive layers that read the stream all layers read."""
    numbered: dict[tuple[str, str, tuple[int, int]], dict[int, Site]] = {}
    for name, site in sites.items():
        number = re.search(r"(?:^|(?<=\.))\d+(?=\.|$)", name)
        if number and not site.is_embedding and not name.endswith(WRITERS):
            key = name[: number.start()], name[number.end() :], site.shape
            numbered.setdefault(key, {})[int(number[0])] = site
    groups = []
    for found in numbered.values():
        layers = sorted(found)
        while len(layers) >= LAYERS:
            run, layers = layers[:LAYERS], layers[LAYERS:]
            if run[-1] - run[0] == LAYERS - 1:
                groups.append(Group(found[run[0]].name, "layers", tuple(found[i] for i in run)))
            else:
                layers = run[1:] + layers
    return groups


def _experts(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """All matrices of the experts of one layer."""
    groups = []
    for name, module in experts(model).items():
        names = [f"{name}.{i}.{role}" for i in range(len(module)) for role in module.roles]
        if all(n in sites for n in names):
            found = tuple(sites[n] for n in names)
            groups.append(Group(names[0], "experts", found, mixture=Mixture(len(module), module.inner)))
    return groups


def _mlps(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """MLPs: the matrices that read the input, with or without a gate, then the one that reads the hidden units."""
    return [Group(members[0].name, "mlp", members) for members in mlps(model, sites)]


def _query_keys(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """Query and key of one attention."""
    return [Group(pair[0].name, "query-key", pair, heads) for pair, heads in query_keys(model, sites)]


def _value_outputs(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """Value and output of one attention."""
    return [Group(pair[0].name, "value-output", pair, heads) for pair, heads in value_outputs(model, sites)]


def _all_mlps(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """The MLPs of all layers, those of the same shapes in one group."""
    alike: dict[tuple[tuple[int, int], ...], list[tuple[Site, ...]]] = {}
    for members in mlps(model, sites):
        alike.setdefault(tuple(site.shape for site in members), []).append(members)
    return [Group(own[0][0].name, "mlps", tuple(chain(*own)), layers=len(own)) for own in alike.values()]


def _attentions(model: nn.Module, sites: dict[str, Site]) -> list[Group]:
    """Query, key, value and output of the attentions of all layers, those with the same heads in one group."""
    valued = {value.name.rpartition(".")[0]: (value, output) for (value, output), _ in value_outputs(model, sites)}
    alike: dict[tuple[object, ...], tuple[Heads, list[tuple[Site, ...]]]] = {}
    for pair, heads in query_keys(model, sites):
        if (rest := valued.get(pair[0].name.rpartition(".")[0])) is not None:
            members = (*pair, *rest)
            alike.setdefault((heads, *(site.shape for site in members)), (heads, []))[1].append(members)
    return [Group(own[0][0].name, "attentions", tuple(chain(*own)), h, layers=len(own)) for h, own in alike.values()]


KINDS: dict[str, Callable[[nn.Module, dict[str, Site]], list[Group]]] = {
    "layers": _layers,
    "experts": _experts,
    "mlp": _mlps,
    "query-key": _query_keys,
    "value-output": _value_outputs,
    "mlps": _all_mlps,
    "attentions": _attentions,
}
"""The kinds of groups, each with what finds those of a model among free sites by name."""
