"""What share of a model's numbers a job looks at, and what it leaves and why: the one account of it for all jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from eckart.models.layers import why_no_matrix
from eckart.models.modules import Structured
from eckart.models.sites import Site, all_sites, linear_layers, linear_parameters
from eckart.models.weights import Readable
from eckart.report.types import Coverage, CoveredMatrices, Part
from eckart.structures import StructuredMatrix

PATTERNS = "left out by --include or --exclude"
EMBEDDING = "an embedding: --embeddings takes it"
HEAD = "the head: --head takes it"
ROTATED = "an embedding that the head reads too, which is rotated with the stream and left at that"
NO_ADAPTER = "an embedding, beside which no adapter stands"
NAMED_HEAD = "the head: --include takes it by its name"
ASKED = frozenset((PATTERNS, EMBEDDING, HEAD, ROTATED, NO_ADAPTER, NAMED_HEAD))
"""Reasons that whoever asked for the job knows."""

UNNAMED_SHARE = 0.01
"""More of a model's numbers than this is not left for any other reason without a warning."""
LEAST_SHARE = 0.25
"""Less of a model's numbers than this is not looked at without a warning."""


def coverage(
    model: nn.Module,
    taken: Iterable[Site],
    *,
    embeddings: bool = True,
    head: bool = True,
    left: Mapping[str, str] | None = None,
) -> Coverage:
    """What a job looks at in a model, before it changes anything.

    Args:
        model: dense or compressed.
        taken: the dense matrices that are looked at.
        embeddings, head: whether those were asked for.
        left: why some of those that would be taken are left after all, by name.
    """
    return covered(model, _names(taken), reasons(model, embeddings=embeddings, head=head, left=left or {}))


def covered(model: nn.Module, taken: Iterable[str], why: Callable[[str, nn.Module], str]) -> Coverage:
    """The account of a job that looks at the modules of some names.

    Args:
        model: before the job changes anything.
        taken: names of modules.
        why: what leaves another one as it is, by its name.
    """
    names = set(taken)
    inner = {*_names(all_sites(model, embeddings=False, head=False)), *linear_layers(model)}
    found: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    vectors = linear = 0
    for (name, *others), layer, shape, numbers in _tensors(model):
        if len(shape) < 2:
            vectors += numbers
            continue
        taken_as = names.intersection((name, *others))
        fate = "" if taken_as else why(name, layer)
        linear += numbers if taken_as & inner else 0
        found.setdefault((kind_of(name), shape, fate), []).append(numbers)
    kinds = [
        CoveredMatrices(name=name, count=len(n), shape=shape, parameters=sum(n), taken=not fate, why=fate)
        for (name, shape, fate), n in found.items()
    ]
    part = Part(
        taken=sum(kind.parameters for kind in kinds if kind.taken),
        total=vectors + sum(kind.parameters for kind in kinds),
    )
    return Coverage(
        sentence=_sentence(part, vectors, kinds),
        parameters=part,
        linear_parameters=Part(taken=linear, total=linear_parameters(model)),
        vectors=vectors,
        matrices=kinds,
    )


def warnings_of(found: Coverage) -> list[str]:
    """The sentence, where more is left than whoever asked for the job can know, or little is looked at at all."""
    total = max(1, found.parameters.total)
    unknown = sum(kind.parameters for kind in found.matrices if not kind.taken and kind.why not in ASKED)
    patterned = sum(kind.parameters for kind in found.matrices if kind.why == PATTERNS)
    few = found.parameters.taken < LEAST_SHARE * (total - patterned)
    return [found.sentence] if few or unknown > UNNAMED_SHARE * total else []


def reasons(
    model: nn.Module,
    *,
    embeddings: bool,
    head: bool,
    left: Mapping[str, str],
    of_embeddings: str = EMBEDDING,
    of_head: str = HEAD,
) -> Callable[[str, nn.Module], str]:
    """Why a job that takes dense matrices leaves one of a name as it is."""
    offered = _names(all_sites(model, embeddings=embeddings, head=head))
    possible = _names(all_sites(model, embeddings=True, head=True))

    def why(name: str, module: nn.Module) -> str:
        if name in left:
            return left[name]
        if name in offered:
            return PATTERNS
        if name in possible:
            return of_embeddings if possible[name].is_embedding else of_head
        return why_no_matrix(module)

    return why


def kind_of(name: str) -> str:
    """A name with `*` for its numbers.

    >>> kind_of("model.layers.3.mlp.up_proj")
    'model.layers.*.mlp.up_proj'
    """
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


def _tensors(model: nn.Module) -> Iterator[tuple[list[str], nn.Module, tuple[int, ...], int]]:
    """Everything that holds numbers: its names, its layer, its shape and how many; what is shared once.

    The weight of a layer has the layer's name. A structure is the matrix that it stands for. A tensor that others are
    computed from is one of their layer.
    """
    modules = dict(model.named_modules())
    adapted = {n for n, m in modules.items() if isinstance(m, Readable) and not isinstance(m, Structured)}
    beside = tuple(f"{name}.{part}" for name in adapted for part in ("paths", "taken"))
    found: dict[int, tuple[list[str], nn.Module, tuple[int, ...], int]] = {}
    for place, module in modules.items():
        if isinstance(module, StructuredMatrix) or place.startswith(beside):
            continue
        name = place.removesuffix(".base") if place.removesuffix(".base") in adapted else place
        if isinstance(module, Structured):
            shape, numbers = module.structure.shape, module.structure.cost().parameters
            found.setdefault(id(module.structure), ([], module, shape, numbers))[0].append(name)
        parametrized = isinstance(module, ParametrizationList)
        layer = modules[name.partition(".parametrizations")[0]] if parametrized else module
        for leaf, p in module._parameters.items():
            if p is not None:
                label = name if leaf == "weight" and name else f"{name}.{leaf}".removeprefix(".")
                found.setdefault(id(p), ([], layer, tuple(p.shape), p.numel()))[0].append(label)
    yield from found.values()


def _sentence(part: Part, vectors: int, kinds: Iterable[CoveredMatrices]) -> str:
    """What was looked at, and what was left and why, the most of it first."""
    total = max(1, part.total)
    left: dict[str, list[CoveredMatrices]] = {}
    for kind in kinds:
        if not kind.taken:
            left.setdefault(kind.why, []).append(kind)
    shares = sorted(((sum(k.parameters for k in same), why, same) for why, same in left.items()), key=lambda s: -s[0])
    parts = [f"{_percent(numbers / total)} in {_named(same)} ({why})" for numbers, why, same in shares]
    if vectors:
        parts.append(f"{_percent(vectors / total)} in vectors")
    said = f"looked at {_percent(part.taken / total)} of the model's numbers"
    return said + (f"; left as they are: {', '.join(parts)}" if parts else "")


def _named(kinds: list[CoveredMatrices]) -> str:
    names = list(dict.fromkeys(kind.name for kind in kinds))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _percent(share: float) -> str:
    """A share in percent; what is there is not 0.0 %, and what is not all is not 100.0 %."""
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _names(sites: Iterable[Site]) -> dict[str, Site]:
    return {name: site for site in sites for name in (site.name, *site.tied)}
