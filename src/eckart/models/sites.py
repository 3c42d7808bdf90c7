"""Where the matrices of a model live: found by module type and name pattern, whatever the architecture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layouts.patches import geometry_of, is_conv2d, why_no_matrix
from eckart.models.convolution import stand_in
from eckart.models.experts import experts
from eckart.models.modules import (
    StructuredEmbedding,
    StructuredLinear,
    Tied,
    TiedEmbedding,
    TiedLinear,
    tied_by_construction,
)
from eckart.structures.base import StructuredMatrix


@dataclass
class Site:
    """One matrix of a model.

    Attributes:
        name: the module's dotted name.
        module: the nn.Linear, transformers Conv1D, nn.Conv2d or nn.Embedding that holds it.
        tied: further names of modules that hold the same tensor (a head tied to the embedding), or of this module.
        share: of the tokens that come here, for an expert of a mixture whose experts are visited equally often.
    """

    name: str
    module: nn.Module
    tied: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def weight(self) -> Tensor:
        """W as (out, in); for an embedding (rows, dimension), for a convolution (out, channels * height * width).

        A view where the module stores it in another form.
        """
        weight = _weight(self.module).detach()
        return weight.T if is_conv1d(self.module) else weight.flatten(1)

    def stored(self, matrix: Tensor) -> Tensor:
        """Another matrix of this shape in the form in which the module stores its own; a view."""
        return matrix.T if is_conv1d(self.module) else matrix.reshape(_weight(self.module).shape)

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

    @property
    def is_convolution(self) -> bool:
        return is_conv2d(self.module)


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def is_conv1d(module: nn.Module) -> bool:
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
        include: glob patterns of module names, or regular expressions behind `re:`; empty means all linear maps. Any
            of the names of a tied matrix will do.
        exclude: patterns of names to leave alone.
        embeddings: take input embeddings too.
        head: take the output head too. Where it is tied to the embedding the two are one site, taken if either is.

    Raises:
        Refused: a pattern matches nothing (the names there are are listed), or nothing is left.
    """
    heads = _heads(model)

    def wanted(site: Site) -> bool:
        is_head = not heads.isdisjoint((site.name, *site.tied))
        if site.is_embedding or is_head:
            return (embeddings and site.is_embedding) or (head and is_head)
        return True

    sites = [site for site in _all_sites(model) if wanted(site)]
    kept = select([(site.name, *site.tied) for site in sites], include, exclude, model)
    if not kept:
        names = [site.name for site in sites]
        raise Refused(f"no matrix to work on in {type(model).__name__}; its linear maps are {_abridged(names)}")
    return [sites[i] for i in kept]


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear maps of a model by name, dense or structured: not its head, and none that reads another's tensors."""
    heads = _heads(model)
    dense = {site.name: site.module for site in _all_sites(model) if not (site.is_embedding or site.tied)}
    owners = {id(module.owner) for module in model.modules() if isinstance(module, Tied)}
    structured = {n: m for n, m in model.named_modules() if isinstance(m, StructuredLinear) and id(m) not in owners}
    found = {**dense, **structured}
    return {name: found[name] for name, _ in model.named_modules() if name in found and name not in heads}


def select(
    named: Sequence[tuple[str, ...]], include: Sequence[str], exclude: Sequence[str], model: nn.Module
) -> list[int]:
    """Positions of what patterns ask for; Refused where a pattern matches nothing.

    Args:
        named: all names of each.
        include, exclude: see `find_sites`.
        model: for a word about what the pattern does match, if it is no matrix.
    """

    def matching(pattern: str) -> set[int]:
        found = {i for i, names in enumerate(named) if any(matches(pattern, name) for name in names)}
        if not found:
            other = ((n, why_no_matrix(m)) for n, m in model.named_modules() if matches(pattern, n))
            hint = next((f": {name} is {why}" for name, why in other if why), "")
            raise Refused(f"pattern {pattern!r} matches no matrix{hint}; there are {_abridged([n[0] for n in named])}")
        return found

    taken, left = ([each] if isinstance(each, str) else each for each in (include, exclude))
    kept = set().union(*map(matching, taken)) if taken else set(range(len(named)))
    return sorted(kept.difference(*map(matching, left)))


def _all_sites(model: nn.Module) -> list[Site]:
    """Every matrix that only modules of known types hold; of several the first embedding, or the first, names it."""
    holders: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((name, module))
    shares = _shares(model)
    sites = []
    for tensor, held in holders.items():
        if not all(_is_site(module) and id(module.weight) == tensor for _, module in held):
            continue
        if len({is_conv1d(module) for _, module in held}) > 1:
            continue
        # One weight in two convolutions stays dense: there is no module that is tied to a structured one.
        if is_conv2d(held[0][1]) and len({id(module) for _, module in held}) > 1:
            continue
        name, module = next(((n, m) for n, m in held if isinstance(m, nn.Embedding)), held[0])
        tied = tuple(n for n, _ in held if n != name)
        sites.append(Site(name, module, tied, shares.get(id(module), 1.0)))
    return sites


def _shares(model: nn.Module) -> dict[int, float]:
    """The share of the tokens that come to each module in experts, by its id."""
    return {id(m): mixture.share for mixture in experts(model).values() for m in mixture.modules()}


def _is_site(module: nn.Module) -> bool:
    # Not their subclasses, which may do more with a weight than multiply by it; nor a table that is rescaled when read.
    if type(module) is nn.Embedding:
        return module.max_norm is None
    return _is_linear(module)


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear or is_conv1d(module) or is_conv2d(module)


def matches(pattern: str, name: str) -> bool:
    """Whether a name, or its end, is what a pattern asks for; Refused where that is no regular expression."""
    if pattern.startswith("re:"):
        try:
            return re.search(pattern[3:], name) is not None
        except re.error as error:
            raise Refused(f"pattern {pattern!r} is not a regular expression: {error}") from error
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _heads(model: nn.Module) -> set[str]:
    get: Any = getattr(model, "get_output_embeddings", None)
    output = get() if get is not None else None
    named = model.named_modules(remove_duplicate=False)
    return {name for name, module in named if output is not None and module is output}


def _abridged(names: Sequence[str]) -> str:
    shown = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in names})
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "none"


def replace(model: nn.Module, site: Site, structure: StructuredMatrix, bias: Tensor | None = None) -> None:
    """Puts a structure where the site's matrix was; tied modules read the same structure and keep their own biases.

    Args:
        model: changed in place.
        site: where; it may have been replaced before.
        structure: of the site's shape.
        bias: (out,), added to the layer's own bias, if any.

    Raises:
        Refused: the structure has another shape.
    """
    if structure.shape != site.shape:
        raise Refused(f"{site.name}: a structure of shape {structure.shape} cannot replace {site.shape}")
    own = site.bias
    total = own if bias is None else bias if own is None else own + bias.to(own)
    owner: StructuredEmbedding | StructuredLinear = (
        StructuredEmbedding(structure) if site.is_embedding else stand_in(structure, total, geometry_of(site.module))
    )
    places = {name: model.get_submodule(name) for name in (site.name, *site.tied)}
    new: dict[int, nn.Module] = {id(places[site.name]): owner}
    for name, old in places.items():
        if id(old) not in new:
            is_embedding = isinstance(old, nn.Embedding | TiedEmbedding)
            new[id(old)] = TiedEmbedding(owner) if is_embedding else TiedLinear(owner, getattr(old, "bias", None))
        set_module(model, name, new[id(old)])
    if len(new) > 1:
        tied_by_construction(model)


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """`model.<name> = module`, with the training flag of what stood there."""
    parent, _, leaf = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), leaf, module)


def linear_parameters(model: nn.Module) -> int:
    """Numbers in all linear maps that are neither embeddings nor the head, dense or structured, biases included.

    Convolutions that can be sites are linear maps.
    """
    heads = _heads(model)
    total = 0
    dense: dict[int, Tensor] = {}
    for name, module in model.named_modules():
        if name in heads:
            continue
        if _is_linear(module):
            dense |= {id(p): p for p in module.parameters()}
        elif isinstance(module, StructuredLinear | TiedLinear):
            total += 0 if module.bias is None else module.bias.numel()
            total += module.structure.cost().parameters if isinstance(module, StructuredLinear) else 0
    return total + sum(p.numel() for p in dense.values())


@torch.no_grad()
def model_cost(model: nn.Module) -> dict[str, int]:
    """Parameters, linear parameters and multiply-adds a token of a whole model, shared tensors counted once.

    Of a convolution the multiply-adds are those of one output position, the matrix times one patch: how many positions
    there are depends on the image. A token is taken to visit as many experts as the configuration says, each of them
    as often as the others.
    """
    seen: set[int] = set()
    parameters = 0
    macs = 0.0
    shares = _shares(model)
    for module in model.modules():
        if isinstance(module, StructuredLinear | TiedLinear):
            macs += module.structure.cost().macs * shares.get(id(module), 1.0)
        elif _is_linear(module):
            macs += _weight(module).numel() * shares.get(id(module), 1.0)
    structures = [m for m in model.modules() if isinstance(m, StructuredMatrix)]
    inside = {id(t) for s in structures for t in (*s.parameters(), *s.buffers())}
    for module in model.modules():
        if isinstance(module, StructuredLinear | StructuredEmbedding) and id(module.structure) not in seen:
            seen.add(id(module.structure))
            parameters += module.structure.cost().parameters
    for p in model.parameters():
        if id(p) not in inside:
            parameters += p.numel()
    return {"parameters": parameters, "linear_parameters": linear_parameters(model), "macs_per_token": round(macs)}


def model_bytes(model: nn.Module) -> int:
    """Bytes of all tensors of a model, shared ones counted once."""
    unique = {t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}
    return sum(unique.values())
