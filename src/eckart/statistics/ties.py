"""A matrix that several modules hold, as a table of look-ups and the head tied to it do: all its uses count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from eckart.statistics.needs import Statistics

BETWEEN = "\0"
"""Stands between the name of a matrix and that of a further module which holds it."""


def with_ties(model: nn.Module, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules, and all others of a model that hold the weight of one of them; see `joined`."""
    held = {name: module._parameters.get("weight") for name, module in modules.items()}
    names = {id(weight): name for name, weight in held.items() if weight is not None}
    known = {id(module) for module in modules.values()}
    found = dict(modules)
    for other, module in model.named_modules():
        name = names.get(id(module._parameters.get("weight")))
        if name is not None and id(module) not in known:
            found[f"{name}{BETWEEN}{other}"] = module
    return found


def also_looked_up(modules: Mapping[str, nn.Module]) -> frozenset[str]:
    """Those among modules `with_ties` that multiply by a matrix whose rows another one looks up."""
    tables = {name.partition(BETWEEN)[0] for name, module in modules.items() if isinstance(module, nn.Embedding)}
    return frozenset(
        name
        for name, module in modules.items()
        if name.partition(BETWEEN)[0] in tables and not isinstance(module, nn.Embedding)
    )


def joined(found: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """The statistics of each matrix, from those of all modules `with_ties`.

    Of a matrix A_k (x) B_k is the Fisher information of a use, A_k its gradient moment and B_k its input moment, with
    the roles turned for a look-up. `sum_k A_k (x) B_k ~ A (x) B` where A is proportional to `sum_k tr(B_k) A_k`, and B
    is the mean of the B_k with weights tr(A_k): the partial traces of the sum, which is met where the A_k, or the B_k,
    are multiples of each other. Those of a table and of the head tied to it nearly are: both A_k are about the
    frequencies of the tokens. Without gradient moments all tokens count the same.
    """
    parts: dict[str, list[Statistics]] = {}
    for name, statistics in found.items():
        parts.setdefault(name.partition(BETWEEN)[0], []).append(statistics)
    return {name: each[0] if len(each) == 1 else _joined(each) for name, each in parts.items()}


def _joined(parts: Sequence[Statistics]) -> Statistics:
    lookup, ran = any(part.lookup for part in parts), [part for part in parts if part.tokens]
    if not ran:
        return replace(parts[0], lookup=lookup)
    gradients, moments = [p.gradient_second_moment for p in ran], [p.input_second_moment for p in ran]
    weighted = all(gradient is not None for gradient in gradients)
    traces = [part.uses * _trace(g) if weighted else part.tokens for part, g in zip(ran, gradients, strict=True)]
    shares = [trace / sum(traces) if any(traces) else 1 / len(ran) for trace in traces]
    moment = _sum(moments, shares)
    size = _trace(moment)
    uses = [part.uses * (_trace(b) / size if size > 0 else 1.0) for part, b in zip(ran, moments, strict=True)]
    mean, absolute = _sum([p.input_mean for p in ran], shares), [p.input_abs_mean for p in ran]
    pairs = [part.gradient_pairs for part in ran if part.gradient_pairs is not None]
    squares = _sum([None if m is None else m.square() for m in absolute], shares)
    return replace(
        ran[0],
        tokens=max(part.tokens for part in ran),
        uses=1.0 if weighted else sum(part.uses for part in ran),
        lookup=lookup,
        input_second_moment=moment,
        input_mean=torch.zeros_like(mean) if lookup and mean is not None else mean,
        input_abs_mean=None if squares is None else squares.sqrt(),
        input_abs_max=_largest([None if lookup else part.input_abs_max for part in ran]),
        gradient_second_moment=_sum(gradients, uses),
        fisher_rows=_sum([part.fisher_rows for part in ran], [1.0] * len(ran)),
        fisher_columns=_sum([part.fisher_columns for part in ran], [1.0] * len(ran)),
        input_sample=None if lookup else ran[0].input_sample,
        gradient_pairs=torch.cat(pairs)[:: len(ran)] if len(pairs) == len(ran) else None,
    )


def _trace(moment: Tensor | None) -> float:
    """Of a matrix, or of one of which there is only the diagonal; 0 where there is none."""
    if moment is None:
        return 0.0
    return float((moment if moment.ndim == 1 else moment.diagonal()).double().sum())


def _sum(values: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Their sum in the dtype of the first; None where one was not measured."""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    total = there[0].double() * weights[0]
    for value, weight in zip(there[1:], weights[1:], strict=True):
        total.add_(value.double(), alpha=weight)
    return total.to(there[0].dtype)


def _largest(values: Sequence[Tensor | None]) -> Tensor | None:
    there = [value for value in values if value is not None]
    return torch.stack(there).amax(0) if len(there) == len(values) else None
