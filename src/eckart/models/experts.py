"""Experts of a mixture as ordinary matrices, and their statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.statistics.accumulators import OF_FISHER
from eckart.statistics.needs import Need, Statistics

DOWN = "down_proj"


class Layout(Protocol):
    """How transformers fused some experts: the flags that its `use_experts_implementation` describes."""

    has_gate: bool
    has_bias: bool
    is_transposed: bool
    is_concatenated: bool
    act_fn: Callable[[Tensor], Tensor]

    def _apply_gate(self, gate_up_out: Tensor) -> Tensor: ...


class Experts(nn.ModuleList):
    """Stands in for fused experts of transformers, each expert a ModuleDict of nn.Linear over its part of the tensors.

    The outputs are those of transformers' own loop over the experts, up to the rounding of matrix products of another
    shape; no other implementation of it (`experts_implementation`) is asked.

    Args:
        fused: see `is_fused`; its tensors are shared, and it stays as it is.

    Attributes:
        share: how many of the experts a token visits, of all; 1 where the configuration does not say.
    """

    def __init__(self, fused: nn.Module) -> None:
        parts: list[nn.Module] = []
        for weights, biases in _experts(cast(Layout, fused), _tensors(fused)):
            linear = {role: _linear(weight, biases.get(role)) for role, weight in weights.items()}
            parts.append(nn.ModuleDict(linear))
        super().__init__(parts)
        layout = copy.copy(fused)
        layout._parameters = {n: nn.Parameter(_known(p).detach().to("meta")) for n, p in fused._parameters.items()}
        # In a tuple, so that it is no part of the model: it holds no tensors.
        self._layout: tuple[Any] = (layout,)
        visited = getattr(getattr(layout, "config", None), "num_experts_per_tok", None)
        self.share = min(1.0, visited / len(parts)) if isinstance(visited, int) else 1.0

    @property
    def roles(self) -> list[str]:
        """The names of an expert's matrices, `down_proj` the last."""
        return list(self._expert(0))

    def _expert(self, index: int) -> dict[str, nn.Module]:
        return dict(cast(nn.ModuleDict, self[index]).items())

    @property
    def inner(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """What stands between the outputs (n, intermediate) of an expert's other matrices, in order, and down_proj."""
        return partial(_inner, self._layout[0])

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The weighted sum of the outputs of the experts that each token visits.

        Args:
            hidden_states: (tokens, hidden).
            top_k_index: (tokens, k), the experts; one that there is not is skipped.
            top_k_weights: (tokens, k).
        """
        total = torch.zeros_like(hidden_states)
        visited = top_k_index.T
        for i in sorted(set(visited.flatten().tolist())):
            if i >= len(self):
                continue
            place, token = torch.where(visited == i)
            expert = self._expert(i)
            x = hidden_states[token]
            y = expert[DOWN](self.inner([linear(x) for role, linear in expert.items() if role != DOWN]))
            total.index_add_(0, token, (y * top_k_weights[token, place, None]).to(total.dtype))
        return total

    def fused(self) -> Any:
        """The module that this one stands in for, of the dense values that the experts have now.

        Raises:
            Refused: an expert has a matrix that is not dense, or a bias that the fused module has no place for.
        """
        module: Any = copy.copy(self._layout[0])
        first = next(self.parameters())
        module._parameters = {
            name: nn.Parameter(torch.empty_like(_known(p), dtype=first.dtype, device=first.device))
            for name, p in module._parameters.items()
        }
        with torch.no_grad():
            for i, (weights, biases) in enumerate(_experts(module, _tensors(module))):
                for role, linear in self._expert(i).items():
                    if type(linear) is not nn.Linear or (linear.bias is not None) > (role in biases):
                        raise Refused(f"{role} of an expert is {linear}, which does not fit a fused tensor")
                    weights[role].copy_(linear.weight)
                    if role in biases:
                        biases[role].copy_(linear.bias)
        return module


def is_fused(module: nn.Module) -> bool:
    """Whether a module is experts of transformers in the layout that its `use_experts_implementation` describes."""
    if not all(isinstance(getattr(module, flag, None), bool) for flag in ("has_gate", "has_bias", "is_transposed")):
        return False
    names = {"gate_up_proj" if module.has_gate else "up_proj", DOWN}
    names |= {f"{name}_bias" for name in names} if module.has_bias else set()
    held = {name: p for name, p in module.named_parameters() if p is not None}
    normed = getattr(module, "has_post_expert_norm", False)
    return not normed and set(held) == names and held[DOWN].ndim == 3


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
    for name, module in experts(model).items():
        for role in module.roles:
            names = [f"{name}.{i}.{role}" for i in range(len(module))]
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
        if field.name not in ("tokens", Need.INPUT_SAMPLE.value) and all(isinstance(v, Tensor) for _, v in held):
            values[field.name] = sum((v * (n / total) for n, v in held[1:]), held[0][1] * (held[0][0] / total))
    return Statistics(**values)  # type: ignore[arg-type]


def _inner(layout: Layout, outputs: Sequence[Tensor]) -> Tensor:
    if not layout.has_gate:
        return layout.act_fn(outputs[0])
    if layout.is_concatenated:
        return layout._apply_gate(torch.cat(list(outputs), -1))
    return layout._apply_gate(torch.stack(list(outputs), -1).flatten(-2))


def _experts(layout: Layout, tensors: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Of each expert the weights (out, in) and biases by role, as views of fused tensors.

    Args:
        layout: says how they are fused.
        tensors: gate_up_proj (experts, 2 intermediate, hidden) or up_proj (experts, intermediate, hidden), down_proj
            (experts, hidden, intermediate), or their transposes; and biases.
    """
    entering = "gate_up_proj" if layout.has_gate else "up_proj"

    def roles(entering: Tensor, leaving: Tensor) -> dict[str, Tensor]:
        if not layout.has_gate:
            return {"up_proj": entering, DOWN: leaving}
        half = len(entering) // 2
        gate, up = (entering[:half], entering[half:]) if layout.is_concatenated else (entering[::2], entering[1::2])
        return {"gate_proj": gate, "up_proj": up, DOWN: leaving}

    for i in range(len(tensors[DOWN])):
        weights = [tensors[name].detach()[i] for name in (entering, DOWN)]
        biases = [tensors[f"{name}_bias"].detach()[i] for name in (entering, DOWN)] if layout.has_bias else []
        turned = [w.T for w in weights] if layout.is_transposed else weights
        yield roles(*turned), roles(*biases) if biases else {}


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """An nn.Linear over tensors that are there."""
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight)
    linear.bias = None if bias is None else nn.Parameter(bias)  # type: ignore[assignment]
    return linear


def _tensors(fused: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in fused._parameters.items() if p is not None}


def _known(parameter: Tensor | None) -> Tensor:
    assert parameter is not None
    return parameter
