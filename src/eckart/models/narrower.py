"""Units of a model that nothing reads left out: hidden ones of its MLPs, outputs of its heads of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eckart.layouts.attention_heads import Heads
from eckart.models.blocks import mlps, query_keys, value_outputs
from eckart.models.layers import is_conv1d
from eckart.models.sites import Site, all_sites

_WIDTHS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff")
"""Fields of configurations that say how wide the MLPs of all layers are."""

_FIXED = ("default", "linear", "llama3", "yarn")
"""Kinds of rotation whose frequencies are the same at all lengths."""


@dataclass(frozen=True)
class Cut:
    """What is left of a matrix.

    Attributes:
        rows, columns: the outputs and the inputs that stay, in order; None for all.
        factor: of what is left.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Narrowing:
    """A size of a model that can be smaller.

    Attributes:
        name: of the size.
        before, after: the number.
        cuts: of the matrices that it is a dimension of, by name.
        fields: of the configuration, and their new values.
    """

    name: str
    before: int
    after: int
    cuts: dict[str, Cut]
    fields: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name} {self.before} to {self.after}"

    def narrow(self, model: nn.Module) -> None:
        """Takes the units out, in place; the configuration is the caller's."""
        for name, cut in self.cuts.items():
            module: Any = model.get_submodule(name)
            weight = _kept(Site(name, module).weight, cut)
            module.weight = nn.Parameter((weight.T if is_conv1d(module) else weight).contiguous())
            if module.bias is not None:
                module.bias = nn.Parameter(_kept(module.bias.detach()[:, None], Cut(cut.rows, factor=cut.factor))[:, 0])

    def narrowed(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """The shapes that its matrices would have, by name."""
        found: dict[str, tuple[int, ...]] = {}
        for name, cut in self.cuts.items():
            module = model.get_submodule(name)
            out, columns = Site(name, module).shape
            shape = _count(cut.rows, out), _count(cut.columns, columns)
            found[name] = shape[::-1] if is_conv1d(module) else shape
        return found


def narrowings(model: Any) -> list[Narrowing]:
    """What a model of ordinary matrices can do without, its outputs the same: all layers keep as many units.

    A hidden unit can go where its column in the matrix that reads it is zero, an output of a head of values likewise,
    and a rotated pair of outputs of queries and keys where those of either are zero, in all heads of all layers, which
    share its frequency. Where layers need different numbers of units all keep the largest of them.
    """
    sites = {site.name: site for site in all_sites(model, embeddings=False, head=False)}
    found = [_hidden(model, sites), _heads(model, sites)]
    return [one for one in found if one is not None and one.after < one.before]


def _hidden(model: Any, sites: dict[str, Site]) -> Narrowing | None:
    """Hidden units of the MLPs; None where these are of several widths."""
    modules = mlps(model, sites)
    widths = {members[-1].shape[1] for members in modules}
    if len(widths) != 1:
        return None
    before = widths.pop()
    read = [members[-1].weight.ne(0).any(0) for members in modules]
    after = max(1, *(int(each.sum()) for each in read))
    cuts: dict[str, Cut] = {}
    for members, each in zip(modules, read, strict=True):
        kept = _first(each, after)
        cuts |= {site.name: Cut(rows=kept) for site in members[:-1]} | {members[-1].name: Cut(columns=kept)}
    config = model.config
    fields = {name: after for name in _WIDTHS if getattr(config, name, 0) in (before, None)}
    return Narrowing("hidden units of an MLP", before, after, cuts, fields)


def _heads(model: Any, sites: dict[str, Site]) -> Narrowing | None:
    """Outputs of heads; None where not all of them can be told apart, or are rotated in full and always alike."""
    scored, valued = query_keys(model, sites), value_outputs(model, sites)
    kinds = {heads for _, heads in scored}
    rotation = _rotation(model)
    if len(scored) != len(valued) or len(kinds) != 1 or rotation is None:
        return None
    heads = kinds.pop()
    if heads.rotary != heads.size or any(h.size != heads.size or h.keys != heads.keys for _, h in valued):
        return None
    served, half = heads.queries // heads.keys, heads.size // 2
    pairs = torch.zeros(half, dtype=torch.bool)
    for (query, key), _ in scored:
        asked, told = (_written(site).view(-1, heads.size) for site in (query, key))
        both = asked & told.repeat_interleave(served, 0)
        pairs |= both.any(0).view(2, half).any(0).cpu()
    read = [output.weight.ne(0).any(0).view(heads.keys, served, heads.size).any(1) for (_, output), _ in valued]
    needed = max(1, *(int(each.sum(1).max()) for each in read))
    after = 2 * max(int(pairs.sum()), -(-needed // 2))
    pair = _first(pairs, after // 2)
    own = torch.cat([pair, pair + half])
    cuts: dict[str, Cut] = {}
    scale = (after / heads.size) ** 0.5 if _scales_by_size(model, scored[0][0][0].name, heads) else 1.0
    for (query, key), _ in scored:
        cuts[query.name] = Cut(rows=_in_heads(own.expand(heads.queries, -1), heads.size), factor=scale)
        cuts[key.name] = Cut(rows=_in_heads(own.expand(heads.keys, -1), heads.size))
    for ((value, output), _), each in zip(valued, read, strict=True):
        kept = torch.stack([_first(one, after) for one in each])
        cuts[value.name] = Cut(rows=_in_heads(kept, heads.size))
        cuts[output.name] = Cut(columns=_in_heads(kept.repeat_interleave(served, 0), heads.size))
    frequencies, attention = rotation
    fields = {
        "head_dim": after,
        "rope_parameters": _rotated(model.config, frequencies[pair.to(frequencies.device)], attention),
    }
    return Narrowing("outputs of a head", heads.size, after, cuts, fields)


def _written(site: Site) -> Tensor:
    """Which outputs are not always zero, (out,)."""
    nonzero = site.weight.ne(0).any(1)
    return nonzero if site.bias is None else nonzero | site.bias.ne(0)


def _first(wanted: Tensor, count: int) -> Tensor:
    """So many indices, ascending: all that are wanted, and others where these are fewer."""
    found: Tensor = wanted.to(torch.uint8).argsort(descending=True, stable=True)[:count].sort().values
    return found


def _in_heads(index: Tensor, size: int) -> Tensor:
    """Indices into each head, (heads, k), as indices into all of them."""
    return (index + size * torch.arange(len(index), device=index.device)[:, None]).flatten()


def _scales_by_size(model: nn.Module, query: str, heads: Heads) -> bool:
    """Whether scores are divided by the root of the size of a head, and not by another number of the configuration."""
    scaling = getattr(model.get_submodule(query.rpartition(".")[0]), "scaling", None)
    fixed = getattr(model.config, "query_pre_attn_scalar", None) is not None
    return not fixed and (scaling is None or abs(scaling * heads.size**0.5 - 1) < 1e-6)


def _rotation(model: nn.Module) -> tuple[Tensor, float] | None:
    """The frequencies of the one rotation of a model, and what it scales by; None where there is no such one."""
    found = [m for m in model.modules() if "inv_freq" in m._buffers]
    kind = getattr(found[0], "rope_type", None) if len(found) == 1 else None
    if kind not in _FIXED:
        return None
    frequencies: Tensor = found[0].get_buffer("inv_freq")
    return frequencies, float(getattr(found[0], "attention_scaling", 1.0))


def _rotated(config: Any, frequencies: Tensor, attention: float) -> dict[str, Any]:
    """A rotation of these frequencies, in the words of configurations: they are those of LongRoPE over its factors."""
    base = float(config.rope_parameters["rope_theta"])
    usual = base ** (-torch.arange(len(frequencies), dtype=torch.float64) / len(frequencies))
    factors = (usual / frequencies.double().cpu()).tolist()
    return {
        "rope_type": "longrope",
        "rope_theta": base,
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": attention,
        "original_max_position_embeddings": config.max_position_embeddings,
    }


def _count(index: Tensor | None, all_of_them: int) -> int:
    return all_of_them if index is None else len(index)


def _kept(matrix: Tensor, cut: Cut) -> Tensor:
    rows = matrix if cut.rows is None else matrix[cut.rows]
    return (rows if cut.columns is None else rows[:, cut.columns]) * cut.factor
