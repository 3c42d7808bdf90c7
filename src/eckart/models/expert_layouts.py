"""How several classes of transformers keep the matrices of all experts of a layer in a few tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DOWN = "down_proj"
Parts = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Weights (out, in) and biases of one expert by role, as views of the tensors of all."""


@dataclass(frozen=True)
class Layout:
    """How experts are kept in tensors, and what they compute.

    Attributes:
        parts: the parts of each expert of a module of this layout.
        inner: of such a module, what gives the input of down_proj from the outputs of the other matrices, in order.
        routed: whether each token visits some experts; else the tokens of all experts come one after the other.
    """

    parts: Callable[[Any], Iterator[Parts]]
    inner: Callable[[Any, Sequence[Tensor]], Tensor]
    routed: bool = True


def layout_of(module: nn.Module) -> Layout | None:
    """The layout of a module that is fused experts; None for any other."""
    held = {name: tuple(p.shape) for name, p in module.named_parameters()}
    if all(isinstance(getattr(module, flag, None), bool) for flag in ("has_gate", "has_bias", "is_transposed")):
        return _FLAGGED if _fits_flags(module, held) else None
    if not hasattr(module, "activation_fn") and set(held) == {"mlp.w1", "mlp.v1", "mlp.w2"}:
        kept = getattr(module, "num_experts", None), getattr(module, "ffn_hidden_size", None)
        same = len(set(held.values())) == 1 and None not in kept
        return _STACKED if same and held["mlp.w1"][0] == kept[0] * kept[1] else None  # type: ignore[operator]
    if set(held) != {"gate_up_proj", DOWN} or not callable(getattr(module, "act_fn", None)):
        return None
    up, down = held["gate_up_proj"], held[DOWN]
    takes = list(inspect.signature(module.forward).parameters)
    if len(up) != 3 or len(down) != 3 or up[0] != down[0]:
        return None
    if takes == ["hidden_states"] and up[1:] == (down[2], 2 * down[1]):
        return _SORTED
    gated = takes == ["hidden_states", "top_k_index", "top_k_weights"] and hasattr(module, "_apply_gate")
    return _GATED if gated and up[1:] == (2 * down[2], down[1]) else None


def _fits_flags(module: Any, held: dict[str, tuple[int, ...]]) -> bool:
    """Whether a module has the tensors that the flags of transformers' `use_experts_implementation` speak of."""
    names = {"gate_up_proj" if module.has_gate else "up_proj", DOWN}
    names |= {f"{name}_bias" for name in names} if module.has_bias else set()
    return not getattr(module, "has_post_expert_norm", False) and set(held) == names and len(held[DOWN]) == 3


def _of_flags(module: Any) -> Iterator[Parts]:
    entering = "gate_up_proj" if module.has_gate else "up_proj"
    for i in range(len(getattr(module, DOWN))):
        weights = [getattr(module, name).detach()[i] for name in (entering, DOWN)]
        biases = [getattr(module, f"{name}_bias").detach()[i] for name in (entering, DOWN)] if module.has_bias else []
        turned = [w.T for w in weights] if module.is_transposed else weights
        how = module.has_gate, module.is_concatenated
        yield _roles(turned[0], turned[1], *how), _roles(biases[0], biases[1], *how) if biases else {}


def _roles(entering: Tensor, leaving: Tensor, gate: bool, concatenated: bool) -> dict[str, Tensor]:
    if not gate:
        return {"up_proj": entering, DOWN: leaving}
    half = len(entering) // 2
    first, second = (entering[:half], entering[half:]) if concatenated else (entering[::2], entering[1::2])
    return {"gate_proj": first, "up_proj": second, DOWN: leaving}


def _inner_of_flags(module: Any, outputs: Sequence[Tensor]) -> Tensor:
    found: Tensor
    if not module.has_gate:
        found = module.act_fn(outputs[0])
    elif module.is_concatenated:
        found = module._apply_gate(torch.cat(list(outputs), -1))
    else:
        found = module._apply_gate(torch.stack(list(outputs), -1).flatten(-2))
    return found


def _of_gated(module: Any) -> Iterator[Parts]:
    for up, down in zip(module.gate_up_proj.detach(), module.down_proj.detach(), strict=True):
        yield _roles(up, down, True, True), {}


def _of_sorted(module: Any) -> Iterator[Parts]:
    for up, down in zip(module.gate_up_proj.detach(), module.down_proj.detach(), strict=True):
        yield _roles(up.T, down.T, True, True), {}


def _of_stacked(module: Any) -> Iterator[Parts]:
    shape = module.num_experts, module.ffn_hidden_size, -1
    for gate, up, down in zip(
        *(p.detach().view(shape) for p in (module.mlp.w1, module.mlp.v1, module.mlp.w2)), strict=True
    ):
        yield {"gate_proj": gate, "up_proj": up, DOWN: down.T}, {}


def _product(module: Any, outputs: Sequence[Tensor]) -> Tensor:
    gate, up = outputs
    found: Tensor = up * module.act_fn(gate)
    return found


def _product_of_inside(module: Any, outputs: Sequence[Tensor]) -> Tensor:
    gate, up = outputs
    found: Tensor = module.mlp.activation_fn(gate) * up
    return found


def _gated(module: Any, outputs: Sequence[Tensor]) -> Tensor:
    found: Tensor = module._apply_gate(torch.cat(list(outputs), -1))
    return found


_FLAGGED = Layout(_of_flags, _inner_of_flags)
_GATED = Layout(_of_gated, _gated)
_SORTED = Layout(_of_sorted, _product, routed=False)
_STACKED = Layout(_of_stacked, _product_of_inside)
