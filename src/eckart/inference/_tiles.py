"""Attention and functions of single tokens, evaluated for some tokens at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
Part = tuple[slice, slice]
"""Some sequences of a batch, and some positions in them."""


def tokenwise(function: Callable[[Tensor], Tensor], tokens: int) -> Callable[[Tensor], Tensor]:
    """A function of each token, x (..., in) -> (..., out), tile by tile."""

    def forward(x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) <= tokens:
            return function(x)
        whole = _Whole(len(flat))
        for span in _slices(len(flat), tokens):
            whole.put((span,), function(flat[span]))
        return whole.tensor.reshape(*x.shape[:-1], -1)

    return forward


def decoder(module: Any, tokens: int) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Self-attention with rotary positions, key heads shared by groups of query heads, and norms of heads if any."""
    own = module.forward

    def forward(
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None]:
        batch, length = hidden_states.shape[:2]
        if batch * length <= tokens:
            result: tuple[Tensor, Tensor | None] = own(
                hidden_states=hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **others,
            )
            return result
        cos, sin = (table.expand(batch, -1, -1) for table in position_embeddings)

        def heads(linear: nn.Module, part: Part) -> Tensor:
            x: Tensor = linear(hidden_states[part])
            return x.view(*x.shape[:2], -1, module.head_dim)

        def turned(linear: nn.Module, norm: str, part: Part) -> Tensor:
            x = heads(linear, part)
            x = getattr(module, norm)(x) if hasattr(module, norm) else x
            return _rotated(x, cos[part][:, :, None], sin[part][:, :, None]).transpose(1, 2)

        def cached(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            both: tuple[Tensor, Tensor] = past_key_values.update(keys, values, module.layer_idx)
            return both

        y = _attend(
            (batch, length),
            query=lambda part: turned(module.q_proj, "q_norm", part),
            key=lambda part: turned(module.k_proj, "k_norm", part),
            value=lambda part: heads(module.v_proj, part).transpose(1, 2),
            output=lambda x, part: module.o_proj(x),
            mask=attention_mask,
            causal=_first(others.get("is_causal"), module.is_causal),
            scale=module.scaling,
            tokens=tokens,
            cached=None if past_key_values is None else cached,
        )
        return y, None

    return forward


def encoder(module: Any, tokens: int) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Self-attention and what follows it in BERT: a dense layer, the residual and the norm."""
    own, inner = module.forward, module.self

    def forward(
        hidden_states: Tensor, attention_mask: Tensor | None = None, past_key_values: Any = None, **others: Any
    ) -> tuple[Tensor, Tensor | None]:
        batch, length = hidden_states.shape[:2]
        if batch * length <= tokens or past_key_values is not None:
            result: tuple[Tensor, Tensor | None] = own(
                hidden_states, attention_mask=attention_mask, past_key_values=past_key_values, **others
            )
            return result

        def heads(linear: nn.Module, part: Part) -> Tensor:
            x: Tensor = linear(hidden_states[part])
            return x.view(*x.shape[:2], -1, inner.attention_head_size).transpose(1, 2)

        y = _attend(
            (batch, length),
            query=lambda part: heads(inner.query, part),
            key=lambda part: heads(inner.key, part),
            value=lambda part: heads(inner.value, part),
            output=lambda x, part: module.output(x, hidden_states[part]),
            mask=attention_mask,
            causal=_first(others.get("is_causal"), inner.is_causal),
            scale=inner.scaling,
            tokens=tokens,
        )
        return y, None

    return forward


def _attend(
    shape: tuple[int, int],
    *,
    query: Callable[[Part], Tensor],
    key: Callable[[Part], Tensor],
    value: Callable[[Part], Tensor],
    output: Callable[[Tensor, Part], Tensor],
    mask: Tensor | None,
    causal: bool,
    scale: float,
    tokens: int,
    cached: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """softmax(scale Q K^T + mask) V through the output layer, for `tokens` queries at a time.

    Args:
        shape: sequences and positions.
        query, key, value: the (sequences, heads, positions, head size) of a part of the batch.
        output: from (sequences, positions, heads x head size) to what is returned for that part.
        mask: (1 or sequences, 1 or heads, 1 or positions, keys), boolean or added to the scores; None for none.
        causal: whether, without a mask, a position sees only those up to itself.
        scale: of the scores.
        tokens: in a tile.
        cached: takes the keys and values of all sequences and gives those to attend to.
    """
    batch, length = shape
    causal = causal and mask is None and length > 1
    spans = _slices(length, tokens)

    def whole(make: Callable[[Part], Tensor], sequences: slice) -> Tensor:
        made = _Whole(sequences.stop - sequences.start, None, length)
        for rows in _slices(sequences.stop, max(1, tokens // length), sequences.start):
            at = slice(rows.start - sequences.start, rows.stop - sequences.start)
            for span in spans:
                made.put((at, slice(None), span), make((rows, span)))
        return made.tensor

    every = slice(0, batch)
    past = None if cached is None else cached(whole(key, every), whole(value, every))
    masks = None if mask is None else mask.expand(batch, -1, length, -1)
    result = _Whole(batch, length)
    for rows in _slices(batch, max(1, tokens // length)):
        keys, values = (whole(key, rows), whole(value, rows)) if past is None else (past[0][rows], past[1][rows])
        for span in spans:
            seen = span.stop if causal else keys.shape[2]
            tile = None if masks is None else masks[rows, :, span]
            if causal and span.start:
                tile = torch.ones(span.stop - span.start, seen, dtype=torch.bool, device=keys.device).tril(span.start)
            x = F.scaled_dot_product_attention(
                query((rows, span)),
                keys[:, :, :seen],
                values[:, :, :seen],
                attn_mask=tile,
                is_causal=causal and not span.start,
                scale=scale,
                enable_gqa=True,
            )
            result.put((rows, span), output(x.transpose(1, 2).flatten(2), (rows, span)))
    return result.tensor


class _Whole:
    """A tensor put together from its parts; the first one tells the dtype, the device and the sizes not given."""

    tensor: Tensor

    def __init__(self, *sizes: int | None) -> None:
        self.sizes = sizes

    def put(self, at: tuple[slice, ...], part: Tensor) -> None:
        if not hasattr(self, "tensor"):
            given = (*self.sizes, *(None for _ in part.shape[len(self.sizes) :]))
            self.tensor = part.new_empty([_first(n, m) for n, m in zip(given, part.shape, strict=True)])
        self.tensor[at] = part


def _first(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _slices(stop: int, size: int, start: int = 0) -> list[slice]:
    return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (x_i, x_{i + d/2}) turned by their angles: x cos + [-x_2, x_1] sin."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
