"""Attention of a transformers model, computed by another function for a while."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.presence import check_model

_numbers = itertools.count()


class Attend(Protocol):
    """softmax(scale Q K^T + mask) V, in some way."""

    def __call__(
        self, name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        """The output of each query.

        Args:
            name: of the attention, in the model.
            query: (sequences, heads, positions, head size).
            keys, values: as the attention, or its cache, made them; (sequences, key heads, tokens, head size).
            mask: (sequences, 1 or heads, positions, tokens), true where a query sees a key, or None.
            scale: of the scores.
            causal: whether, without a mask, a position sees only those up to itself.

        Returns:
            (sequences, heads, positions, head size).
        """
        ...


def attentions(model: nn.Module, whose: str) -> dict[str, nn.Module]:
    """The attentions that call the function which the model's configuration names, by name.

    Raises:
        Refused: there are none, or one does not run torch's `scaled_dot_product_attention`.
    """
    check_model(model, whose)
    found = {name: module for name, module in model.named_modules() if _is_attention(module)}
    if not found:
        raise Refused(
            f"{whose}: {type(model).__name__} has no attention of transformers that can be computed otherwise"
        )
    for name, module in found.items():
        if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
            raise Refused(
                f"{whose}: the forward of {name} was replaced already, by eckart.tiled or by a hook: undo that"
            )
        if (used := _config(module)._attn_implementation) != "sdpa":
            raise Refused(f"{whose}: {name} uses {used!r} attention; call model.set_attn_implementation('sdpa') first")
    return found


@contextmanager
def attending(model: nn.Module, attend: Attend, whose: str) -> Iterator[dict[str, nn.Module]]:
    """Inside, the attentions of a model are computed by `attend`; yields them by name.

    Raises:
        Refused: as `attentions`; and, inside, an attention with something that `attend` does not know: a cap of the
            scores, sinks or a bias of positions.
    """
    # Here and not above, since the register of papers imports this file and transformers takes seconds.
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = attentions(model, whose)
    names = {module: name for name, module in found.items()}

    def function(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **others: object,
    ) -> tuple[Tensor, None]:
        for what in ("softcap", "s_aux", "position_bias", "cache"):
            if others.get(what) is not None:
                raise Refused(f"{whose}: {names[module]} has {what!r} in its attention, which {whose} does not compute")
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        causal = causal and attention_mask is None and query.shape[2] > 1
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out = attend(names[module], query, key, value, attention_mask, scale, causal)
        return out.transpose(1, 2).contiguous(), None

    implementation = f"eckart-{next(_numbers)}"
    configs: list[Any] = list({id(c): c for m in model.modules() if (c := _config(m)) is not None}.values())
    used = [config._attn_implementation_internal for config in configs]
    ALL_ATTENTION_FUNCTIONS.register(implementation, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(implementation, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    try:
        for config in configs:
            config._attn_implementation_internal = implementation
        yield found
    finally:
        for config, before in zip(configs, used, strict=True):
            config._attn_implementation_internal = before
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(implementation)
        ALL_MASK_ATTENTION_FUNCTIONS._global_mapping.pop(implementation)


def exact_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
) -> Tensor:
    """softmax(scale Q K^T + mask) V; key heads may be fewer, and values of another size than keys.

    Without a mask, `causal` queries are the first ones of the keys' positions.
    """
    if causal and keys.shape[2] > query.shape[2]:
        keys, values = keys[:, :, : query.shape[2]], values[:, :, : query.shape[2]]
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True
    )


def in_groups(query: Tensor, heads: int) -> Tensor:
    """(sequences, heads, ...) -> (sequences, key heads, those that share one, ...)."""
    return query.reshape(len(query), heads, -1, *query.shape[2:])


def _is_attention(module: nn.Module) -> bool:
    kind = type(module)
    return (
        kind.__name__.endswith("Attention")
        and kind.__module__.startswith("transformers.models.")
        and hasattr(module, "scaling")
        and _config(module) is not None
        and not getattr(module, "is_cross_attention", False)
    )


def _config(module: nn.Module) -> Any:
    config = getattr(module, "config", None)
    return config if hasattr(config, "_attn_implementation_internal") else None
