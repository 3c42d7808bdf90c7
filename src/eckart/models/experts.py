"""Experts of a mixture as ordinary matrices, and their statistics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.expert_layouts import DOWN, Layout, layout_of
from eckart.models.sharing import share
from eckart.models.views import linear
from eckart.statistics.accumulators import OF_FISHER
from eckart.statistics.needs import Need, Statistics

SAMPLES = (Need.INPUT_SAMPLE.value, Need.GRADIENT_PAIRS.value)
"""What has no mean."""


class Experts(nn.ModuleList):
    """Stands in for fused experts of transformers, each expert a ModuleDict of nn.Linear over its part of the tensors.

    The outputs are those of transformers' own loop over the experts, up to the rounding of matrix products of another
    shape; no other implementation of it (`experts_implementation`) is asked.

    Args:
        fused: see `layout_of`; its tensors are shared, and it stays as it is.
        visited: how many experts a token visits, where the module itself does not say.

    Attributes:
        share: how many of the experts a token visits, of all; 1 where nobody says.
    """

    def __init__(self, fused: nn.Module, visited: int | None = None) -> None:
        layout = layout_of(fused)
        assert layout is not None
        parts: list[nn.Module] = []
        for weights, biases in layout.parts(fused):
            parts.append(nn.ModuleDict({role: linear(weight, biases.get(role)) for role, weight in weights.items()}))
        super().__init__(parts)
        # In a tuple, so that it is no part of the model: it holds no tensors.
        self._layout: tuple[Layout, Any] = (layout, _emptied(fused, torch.device("meta")))
        own = getattr(getattr(fused, "config", None), "num_experts_per_tok", visited)
        self.share = min(1.0, own / len(parts)) if isinstance(own, int) and layout.routed else 1.0

    @property
    def roles(self) -> list[str]:
        """The names of an expert's matrices, `down_proj` the last."""
        return list(self._expert(0))

    @property
    def members(self) -> list[list[str]]:
        """The names of the matrices inside it, those of one role together."""
        return [[f"{i}.{role}" for i in range(len(self))] for role in self.roles]

    def _expert(self, index: int) -> dict[str, nn.Module]:
        return dict(cast(nn.ModuleDict, self[index]).items())

    @property
    def inner(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """What stands between the outputs (n, intermediate) of an expert's other matrices, in order, and down_proj."""
        layout, module = self._layout
        return partial(layout.inner, module)

    def _computed(self, index: int, x: Tensor) -> Tensor:
        expert = self._expert(index)
        y: Tensor = expert[DOWN](self.inner([layer(x) for role, layer in expert.items() if role != DOWN]))
        return y

    def forward(
        self, hidden_states: Tensor, top_k_index: Tensor | None = None, top_k_weights: Tensor | None = None
    ) -> Tensor:
        """The weighted sum of the outputs of the experts that each token visits.

        Args:
            hidden_states: (..., hidden); without routing, as many for each expert, one expert after the other.
            top_k_index: (tokens, k), the experts; one that there is not is skipped.
            top_k_weights: (tokens, k).
        """
        states = hidden_states.reshape(-1, hidden_states.shape[-1])
        if top_k_index is None or top_k_weights is None:
            return torch.cat([self._computed(i, x) for i, x in enumerate(states.chunk(len(self)))])
        total = torch.zeros_like(states)
        visited = top_k_index.T
        for i in sorted(set(visited.flatten().tolist())):
            if i >= len(self):
                continue
            place, token = torch.where(visited == i)
            y = self._computed(i, states[token])
            total.index_add_(0, token, (y * top_k_weights[token, place, None]).to(total.dtype))
        return total.reshape(hidden_states.shape)

    def packed(self) -> nn.Module:
        """The module that this one stands in for, of the dense values that the experts have now.

        Raises:
            Refused: an expert has a matrix that is not dense, or a bias that the fused module has no place for.
        """
        layout, module = self._layout
        first = next(self.parameters())
        made = _emptied(module, first.device, first.dtype)
        with torch.no_grad():
            for i, (weights, biases) in enumerate(layout.parts(made)):
                for role, layer in self._expert(i).items():
                    if type(layer) is not nn.Linear or (layer.bias is not None) > (role in biases):
                        raise Refused(f"{role} of an expert is {layer}, which does not fit a fused tensor")
                    weights[role].copy_(layer.weight)
                    if role in biases:
                        biases[role].copy_(layer.bias)
        return made


def _emptied(module: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """A module like another one whose tensors have no values yet."""
    made = share(module)
    for part in made.modules():
        part._parameters = {
            n: None if p is None else nn.Parameter(torch.empty_like(p, dtype=dtype, device=device))
            for n, p in part._parameters.items()
        }
    return made


class ParallelExperts(nn.ModuleList):
    """Stands in for one matrix of each expert in one tensor (JetMoE), as an nn.Linear each over its part of it.

    Args:
        fused: see `is_parallel`; its tensor is shared, and it stays as it is.
        visited: how many experts a token visits.

    Attributes:
        share: how many of the experts a token visits, of all; 1 where nobody says.
    """

    def __init__(self, fused: nn.Module, visited: int | None = None) -> None:
        weight: Tensor = fused.weight  # type: ignore[assignment]
        super().__init__([linear(each, None) for each in weight.detach()])
        self._layout: tuple[nn.Module] = (_emptied(fused, torch.device("meta")),)
        self.share = min(1.0, visited / len(weight)) if isinstance(visited, int) else 1.0

    @property
    def members(self) -> list[list[str]]:
        """The names of the matrices inside it, those of one role together."""
        return [[str(i) for i in range(len(self))]]

    def forward(self, inputs: Tensor, expert_size: list[int]) -> Tensor:
        """The outputs of inputs (n, in) that come sorted by expert, as many for each as `expert_size` says."""
        parts: Sequence[Tensor] = torch.split(inputs, expert_size)
        return torch.cat([layer(x) for layer, x in zip(self, parts, strict=True)])

    def packed(self) -> nn.Module:
        """The module that this one stands in for; Refused where a matrix is not dense, or has a bias."""
        first = next(self.parameters())
        made = _emptied(self._layout[0], first.device, first.dtype)
        with torch.no_grad():
            for part, layer in zip(made.get_parameter("weight"), self, strict=True):
                dense = layer if type(layer) is nn.Linear else None
                if dense is None or any(name == "bias" for name, _ in dense.named_parameters()):
                    raise Refused(f"an expert is {layer}, which does not fit a fused tensor")
                part.copy_(dense.weight)
        return made


def is_parallel(module: nn.Module) -> bool:
    """Whether a module is one matrix of each expert, over inputs that come sorted by expert."""
    held = dict(module.named_parameters())
    takes = list(inspect.signature(module.forward).parameters)
    return set(held) == {"weight"} and held["weight"].ndim == 3 and takes == ["inputs", "expert_size"]


def mixtures(model: nn.Module) -> dict[str, Experts | ParallelExperts]:
    """Whatever of a model was taken apart into matrices that only some of the tokens meet, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Experts | ParallelExperts)}


def experts(model: nn.Module) -> dict[str, Experts]:
    """The experts of a model that were taken apart, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Experts)}


def per_token(model: nn.Module, statistics: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Statistics of experts in the units of those of other matrices, and for experts that no token reached.

    Second moments of gradients become means over all tokens of the text, not over the `tokens` that reached the expert:
    an error that they weigh is then one a token of the text, and can be compared with that of a matrix that every token
    meets. The Fisher information is one a sequence already. Half a token is added to each count, so that no matrix is
    for free. An expert that no token reached gets the means of its neighbours; its `tokens` stay 0.
    """
    total = max((s.tokens for s in statistics.values()), default=0)
    changed = dict(statistics)
    for name, module in mixtures(model).items():
        for inside in module.members:
            names = [f"{name}.{each}" for each in inside]
            names = [n for n in names if n in statistics]
            reached = [statistics[n] for n in names if statistics[n].tokens]
            mean = _mean(reached) if len(reached) < len(names) and reached else Statistics()
            typical = sum(s.tokens for s in reached) / max(1, len(reached))
            for each in names:
                own = statistics[each]
                scaled = own if own.tokens else replace(mean, tokens=0)
                counted = {
                    Need.GRADIENT_SECOND_MOMENT: max(total, 1),
                    **dict.fromkeys(OF_FISHER, own.tokens or max(typical, 1)),
                }
                held = {need: getattr(scaled, need.value) for need in counted}
                values = {
                    need.value: value * ((own.tokens + 0.5) / counted[need])
                    for need, value in held.items()
                    if value is not None
                }
                changed[each] = replace(scaled, uses=1.0, **values)
    return changed


def _mean(statistics: Sequence[Statistics]) -> Statistics:
    """The means of some statistics, each token counting once; without samples."""
    total = sum(s.tokens for s in statistics)
    values: dict[str, Tensor] = {}
    for field in fields(Statistics):
        held = [(s.tokens, getattr(s, field.name)) for s in statistics]
        if field.name not in ("tokens", *SAMPLES) and all(isinstance(v, Tensor) for _, v in held):
            values[field.name] = sum((v * (n / total) for n, v in held[1:]), held[0][1] * (held[0][0] / total))
    return Statistics(**values)  # type: ignore[arg-type]
