"""Which matrices of a model a recipe takes, and why it leaves the others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from eckart.jobs.compress.recipe import Recipe
from eckart.models.layers import why_no_matrix
from eckart.models.sites import Site, find_sites, model_cost


@dataclass(frozen=True)
class Kind:
    """Matrices whose names differ in numbers only, and which have one shape and one fate.

    Attributes:
        name: of them all, `*` for a number.
        count: how many there are.
        shape: of each, as its module stores it.
        parameters: of all of them.
        taken: whether they are compressed.
        why: what leaves them as they are, or "".
    """

    name: str
    count: int
    shape: tuple[int, ...]
    parameters: int
    taken: bool
    why: str


def coverage(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Which matrices a recipe takes, and why it leaves the others.

    Returns:
        `parameters` and `linear_parameters`: those `taken` and those in `total`. `matrices`: a `Kind` each, as a
        dictionary; of tied ones the first.

    Raises:
        Refused: a pattern matches nothing, or there is nothing to take.
    """
    taken = _names(find_sites(model, recipe.include, recipe.exclude, embeddings=recipe.embeddings, head=recipe.head))
    offered = _names(find_sites(model, embeddings=recipe.embeddings, head=recipe.head))
    possible = _names(find_sites(model, embeddings=True, head=True))

    def why(name: str, module: nn.Module) -> str:
        if name in taken:
            return ""
        if name in offered:
            return "left out by --include or --exclude"
        if name in possible:
            return "an embedding: --embeddings takes it" if possible[name].is_embedding else "the head: --head takes it"
        return why_no_matrix(module)

    found: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None and parameter.ndim > 1 and id(parameter) not in seen:
                seen.add(id(parameter))
                kind = kind_of(name), tuple(parameter.shape), why(name, module)
                found.setdefault(kind, []).append(parameter.numel())
    kinds = [Kind(name, len(n), shape, sum(n), not reason, reason) for (name, shape, reason), n in found.items()]
    cost = model_cost(model)
    linear = _names(find_sites(model))
    return {
        "parameters": {"taken": _numbers(taken.values()), "total": cost["parameters"]},
        "linear_parameters": {
            "taken": _numbers(site for name, site in taken.items() if name in linear),
            "total": cost["linear_parameters"],
        },
        "matrices": [asdict(kind) for kind in kinds],
    }


def kind_of(name: str) -> str:
    """A name with `*` for its numbers.

    >>> kind_of("model.layers.3.mlp.up_proj")
    'model.layers.*.mlp.up_proj'
    """
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


def _names(sites: Iterable[Site]) -> dict[str, Site]:
    return {name: site for site in sites for name in (site.name, *site.tied)}


def _numbers(sites: Iterable[Site]) -> int:
    return sum(site.weight.numel() for site in {id(site): site for site in sites}.values())
