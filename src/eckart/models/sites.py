"""Where the matrices of a model live: found by module type and name pattern, whatever the architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from eckart.errors import Refused
from eckart.layouts.patches import is_convolution
from eckart.models.experts import mixtures
from eckart.models.layers import is_conv1d, is_embedding, is_linear, why_no_matrix
from eckart.models.modules import (
    StructuredEmbedding,
    StructuredLinear,
    Tied,
    TiedLinear,
)
from eckart.register import near
from eckart.structures.base import StructuredMatrix


@dataclass
class Site:
    """One matrix of a model.

    Attributes:
        name: the module's dotted name.
        module: the linear layer, convolution or embedding that holds it; see `eckart.models.layers`.
        tied: further names of modules that hold the same tensor (a head tied to the embedding), or of this module.
        share: of the tokens that come here, for an expert of a mixture whose experts are visited equally often.
        takes_bias: whether a bias may be added here: no table has one, and no configuration speaks of a head's.
    """

    name: str
    module: nn.Module
    tied: tuple[str, ...] = ()
    share: float = 1.0
    takes_bias: bool = True

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
        return is_convolution(self.module)


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


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
    sites = all_sites(model, embeddings=embeddings, head=head)
    kept = select([(site.name, *site.tied) for site in sites], include, exclude, model)
    if not kept:
        names = [site.name for site in sites]
        done = sum(isinstance(module, StructuredLinear | StructuredEmbedding) for module in model.modules())
        if not names and done:
            raise Refused(
                f"all {done} matrices of {type(model).__name__} are compressed already: compress the dense model to "
                "the size that is wanted, or make this one dense again first (eckart export --to dense)"
            )
        raise Refused(f"no matrix to work on in {type(model).__name__}; its linear maps are {_abridged(names)}")
    return [sites[i] for i in kept]


def all_sites(model: nn.Module, *, embeddings: bool, head: bool) -> list[Site]:
    """As `find_sites` without patterns; none where there are none."""
    heads = _heads(model)

    def wanted(site: Site) -> bool:
        is_head = not heads.isdisjoint((site.name, *site.tied))
        if site.is_embedding or is_head:
            return (embeddings and site.is_embedding) or (head and is_head)
        return True

    return [site for site in _all_sites(model) if wanted(site)]


def linear_layers(model: nn.Module, *, head: bool = False) -> dict[str, nn.Module]:
    """The linear maps of a model by name, dense or structured: none that reads another's tensors, and not its head.

    With `head` the head is one of them, tied to an embedding or not.
    """
    heads = _heads(model)
    inside = {n: m for n, m in model.named_modules() if any(n == h or n.startswith(f"{h}.") for h in heads)}
    dense = {site.name: site.module for site in _all_sites(model) if not (site.is_embedding or site.tied)}
    owners = {id(module.owner) for module in model.modules() if isinstance(module, Tied)}
    structured = {n: m for n, m in model.named_modules() if isinstance(m, StructuredLinear) and id(m) not in owners}
    found = {name: module for name, module in {**dense, **structured}.items() if name not in inside}
    if head:
        found |= {n: m for n, m in inside.items() if is_linear(m) or isinstance(m, StructuredLinear)}
    return {name: found[name] for name, _ in model.named_modules() if name in found}


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
            held = ((n, m) for n, m in model.named_modules() if matches(pattern, n) and _holds_a_matrix(m))
            hint = next((f": {n}: {why_no_matrix(m)}" for n, m in held if not (is_embedding(m) or is_linear(m))), "")
            names = [n[0] for n in named]
            meant = "" if hint else _near(pattern, names)
            raise Refused(f"pattern {pattern!r} matches no matrix{hint}; {meant}there are {_abridged(names)}")
        return found

    taken, left = as_patterns(include), as_patterns(exclude)
    kept = set().union(*map(matching, taken)) if taken else set(range(len(named)))
    return sorted(kept.difference(*map(matching, left)))


def as_patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    """One pattern, or several, as several; Refused where they are no texts."""
    patterns = (given,) if isinstance(given, str) else given
    if not isinstance(patterns, Iterable) or not all(isinstance(each, str) for each in patterns):
        raise Refused(f"{given!r:.80} is no pattern of names, nor a list of them: 'model.layers.*.mlp.*' would be one")
    return tuple(patterns)


def _all_sites(model: nn.Module) -> list[Site]:
    """Every matrix that only modules of known types hold; of several the first embedding, or the first, names it."""
    holders: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((name, module))
    shares, heads = _shares(model), _heads(model)
    sites = []
    for tensor, held in holders.items():
        if not all((is_embedding(module) or is_linear(module)) and id(module.weight) == tensor for _, module in held):
            continue
        if len({is_conv1d(module) for _, module in held}) > 1:
            continue
        # One weight in two convolutions stays dense: there is no module that is tied to a structured one.
        if is_convolution(held[0][1]) and len({id(module) for _, module in held}) > 1:
            continue
        name, module = next(((n, m) for n, m in held if isinstance(m, nn.Embedding)), held[0])
        tied = tuple(n for n, _ in held if n != name)
        is_table = isinstance(module, nn.Embedding)
        biased = not is_table and (name not in heads or getattr(module, "bias", None) is not None)
        sites.append(Site(name, module, tied, shares.get(id(module), 1.0), biased))
    return sites


def _shares(model: nn.Module) -> dict[int, float]:
    """The share of the tokens that come to each module in experts, by its id."""
    return {id(m): mixture.share for mixture in mixtures(model).values() for m in mixture.modules()}


def _holds_a_matrix(module: nn.Module) -> bool:
    return any(p is not None and p.ndim > 1 for p in module._parameters.values()) or is_parametrized(module)


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


def _near(pattern: str, names: Sequence[str]) -> str:
    """A question that offers the pattern of names, or of their ends, that is nearest to one that matches none."""
    kinds = {re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name) for name in names}
    ends = {kind.split(".", i)[-1] for kind in kinds for i in range(kind.count(".") + 1)}
    numbered = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", pattern)
    return near(numbered, sorted(ends | {end.rpartition(".")[0] + ".*" for end in ends if "." in end}))


def _abridged(names: Sequence[str]) -> str:
    shown = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in names})
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "none"


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
        if is_linear(module):
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
        elif is_linear(module):
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
    tensors = model.state_dict(keep_vars=True).values()
    # What is on no device has no place in memory, and is told apart as it is.
    unique = {(t.is_meta, id(t) if t.is_meta else t.data_ptr()): t.numel() * t.element_size() for t in tensors}
    return sum(unique.values())
