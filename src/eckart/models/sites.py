"""Where the matrices of a model live: found by module type and name pattern, whatever the architecture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.structures.base import StructuredMatrix


@dataclass
class Site:
    """One matrix of a model.

    Attributes:
        name: the module's dotted name.
        module: the nn.Linear, transformers Conv1D or nn.Embedding that holds it.
        tied: names of further modules that hold the same tensor (a head tied to the embedding).
    """

    name: str
    module: nn.Module
    tied: tuple[str, ...] = ()

    @property
    def weight(self) -> Tensor:
        """W as (out, in); for an embedding (rows, dimension). A view where the module stores it transposed."""
        weight = _weight(self.module).detach()
        return weight.T if _is_conv1d(self.module) else weight

    @property
    def bias(self) -> Tensor | None:
        bias = getattr(self.module, "bias", None)
        return bias.detach() if isinstance(bias, Tensor) else None

    @property
    def shape(self) -> tuple[int, int]:
        out, columns = self.weight.shape
        return int(out), int(columns)

    @property
    def is_embedding(self) -> bool:
        return isinstance(self.module, nn.Embedding)


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _is_conv1d(module: nn.Module) -> bool:
    """transformers' Conv1D: a linear map that stores its weight as (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def find_sites(
    model: nn.Module,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    embeddings: bool = False,
    head: bool = False,
) -> list[Site]:
    """The matrices of a model in module order.

    Args:
        model: any module.
        include: glob patterns of module names, or regular expressions behind `re:`; empty means all linear maps.
        exclude: patterns of names to leave alone.
        embeddings: take input embeddings too.
        head: take the output head too. Where it is tied to the embedding the two are one site, taken if either is.

    Raises:
        ValueError: a pattern matches nothing (the names there are are listed), or nothing is left.
    """
    heads = _heads(model)
    candidates: dict[str, Site] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        if not (type(module) is nn.Linear or isinstance(module, nn.Embedding) or _is_conv1d(module)):
            continue
        weight = _weight(module)
        if (first := owner.setdefault(id(weight), name)) != name:
            candidates[first].tied += (name,)
        else:
            candidates[name] = Site(name, module)

    def wanted(site: Site) -> bool:
        names = {site.name, *site.tied}
        is_head = bool(names & heads)
        if site.is_embedding or is_head:
            return (embeddings and site.is_embedding) or (head and is_head)
        return True

    sites = [site for site in candidates.values() if wanted(site)]
    names = [site.name for site in sites]
    for pattern in (*include, *exclude):
        if not any(_matches(pattern, name) for name in names):
            raise ValueError(f"pattern {pattern!r} matches no matrix; there are {_abridged(names)}")
    if include:
        sites = [site for site in sites if any(_matches(p, site.name) for p in include)]
    sites = [site for site in sites if not any(_matches(p, site.name) for p in exclude)]
    if not sites:
        raise ValueError(f"no matrix to work on in {type(model).__name__}; its linear maps are {_abridged(names)}")
    return sites


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.search(pattern[3:], name) is not None
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _heads(model: nn.Module) -> set[str]:
    get: Any = getattr(model, "get_output_embeddings", None)
    output = get() if get is not None else None
    return {name for name, module in model.named_modules() if output is not None and module is output}


def _abridged(names: Sequence[str]) -> str:
    shown = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in names})
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "none"


def replace(model: nn.Module, site: Site, structure: StructuredMatrix, bias: Tensor | None = None) -> None:
    """Puts a structure where the site's matrix was; tied modules read the same structure.

    Args:
        bias: (out,), added to the layer's own bias, if any.
    """
    if structure.shape != site.shape:
        raise ValueError(f"{site.name}: a structure of shape {structure.shape} cannot replace {site.shape}")
    own = site.bias
    total = own if bias is None else bias if own is None else own + bias.to(own)
    owner = StructuredEmbedding(structure) if site.is_embedding else StructuredLinear(structure, total)
    set_module(model, site.name, owner)
    for name in site.tied:
        set_module(model, name, TiedLinear(owner))


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """`model.<name> = module`, with the training flag of what stood there."""
    parent, _, leaf = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), leaf, module)


def dense_module(module: nn.Module) -> nn.Module:
    """The dense layer a structured one stands for, in its dtype."""
    if isinstance(module, StructuredEmbedding):
        rows = module.structure.to_dense().detach().clone()
        return nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows)
    if isinstance(module, StructuredLinear | TiedLinear):
        weight = module.structure.to_dense().detach().contiguous()
        bias = module.bias if isinstance(module, StructuredLinear) else None
        linear = nn.Linear(1, 1, bias=bias is not None, device="meta")
        linear.out_features, linear.in_features = weight.shape
        linear.weight = nn.Parameter(weight.clone())
        if bias is not None:
            linear.bias = nn.Parameter(bias.detach().clone())
        return linear
    raise TypeError(f"{type(module).__name__} is not a structured module")


def linear_parameters(model: nn.Module) -> int:
    """Numbers in all linear maps that are neither embeddings nor the head, dense or structured, biases included."""
    heads = _heads(model)
    total, seen = 0, set[int]()
    for name, module in model.named_modules():
        if name in heads or id(module) in seen:
            continue
        seen.add(id(module))
        if type(module) is nn.Linear or _is_conv1d(module):
            total += sum(p.numel() for p in module.parameters())
        elif isinstance(module, StructuredLinear):
            total += module.structure.cost().parameters + (0 if module.bias is None else module.bias.numel())
    return total


@torch.no_grad()
def model_cost(model: nn.Module) -> dict[str, int]:
    """Parameters, linear parameters and multiply-adds a token of a whole model, shared tensors counted once."""
    seen: set[int] = set()
    parameters = macs = 0
    for module in model.modules():
        if isinstance(module, StructuredLinear | TiedLinear):
            macs += module.structure.cost().macs
        elif type(module) is nn.Linear or _is_conv1d(module):
            macs += _weight(module).numel()
    structures = [m for m in model.modules() if isinstance(m, StructuredMatrix)]
    inside = {id(t) for s in structures for t in (*s.parameters(), *s.buffers())}
    for module in model.modules():
        if isinstance(module, StructuredLinear | StructuredEmbedding) and id(module.structure) not in seen:
            seen.add(id(module.structure))
            parameters += module.structure.cost().parameters
    for p in model.parameters():
        if id(p) not in inside:
            parameters += p.numel()
    return {"parameters": parameters, "linear_parameters": linear_parameters(model), "macs_per_token": macs}
