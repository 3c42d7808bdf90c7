"""Attention in integers: scores from 8 or 4 bits of smoothed queries and keys, probabilities and values in float8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.inference.contract import inside
from eckart.models.presence import check_model
from eckart.models.transformers_attention import attending, exact_attention, in_groups
from eckart.structures._checks import size_option

_BLOCK = 128
"""Queries that share a mean."""
_FP8 = torch.float8_e4m3fn
_FP8_LARGEST = 448.0


@inside(
    "sage-attention2",
    paper="Zhang et al. 2024, arXiv 2411.10958",
    saves="the products of attention take 8 bits",
    approximates="scores in 8 or 4 bits, probabilities and values in float8",
)
@contextmanager
def integer_attention(model: nn.Module, bits: int = 8, least: int = _BLOCK) -> Iterator[list[str]]:
    """Inside, attention over long inputs multiplies integers of queries and keys, and float8 of what follows.

    With km the mean of the keys that any query sees, qm that of a block of 128 queries, q' = q - qm and k' = k - km,
    scores are q'.k' + qm.k', from which q.k differs by q.km, the same for all keys, that falls out of the softmax. q'
    and k' are rounded to 8 bits (or 4), a scale a token; qm.k' is not. exp(score - largest), in 0..1, is float8 (E4M3)
    at the static scale 1/448, values minus their mean are float8 with a scale a channel, and the mean is added back,
    since probabilities sum to one. A token's result that is not finite is computed again without any of this.

    SageAttention2 (Zhang et al. 2024, arXiv 2411.10958), equations of section 3. There groups of tokens share a scale,
    as its kernels ask. **The published repository has no kernel for 4 bits**, only for 8, on CUDA. Here the product of
    queries and keys is in integers (`torch._int_mm`, 8 bits also for codes of 4, so that 4 bits have their values and
    not their speed), and float8 has its values only: it is computed in float32. As the means go over all tokens of a
    call, later tokens change the rounding of earlier ones: not their score, but the last digits.

    Args:
        model: in eval mode, with `sdpa` attention, of transformers.
        bits: of queries and keys, 8 or 4.
        least: calls with fewer queries for each sequence run as without it, decoding among them; and so do those with
            a mask that is added to the scores.

    Yields:
        The names of the attentions.

    Raises:
        Refused: a model in training mode or without such attentions, or other bits.
    """
    size_option("integer_attention", "least", least)
    if bits not in (4, 8):
        raise Refused(f"integer_attention: bits must be 8 or 4, got {bits!r}")
    check_model(model, "integer_attention")
    if model.training:
        raise Refused("integer_attention is for inference: call model.eval() first")

    def attend(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        if query.shape[2] >= least and (mask is None or mask.dtype == torch.bool):
            y = sage_attention(query, keys, values, mask, scale, causal, bits)
            lost = ~torch.isfinite(y).all(-1, keepdim=True)
            return y.where(~lost, exact_attention(query, keys, values, mask, scale, causal)) if lost.any() else y
        return exact_attention(query, keys, values, mask, scale, causal)

    with attending(model, attend, "integer_attention") as found:
        yield list(found)


def sage_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float,
    causal: bool,
    bits: int = 8,
    smoothed: bool = True,
) -> Tensor:
    """softmax(scale Q K^T + mask) V as `integer_attention` rounds it, a block of queries at a time.

    Args:
        query: (sequences, heads, positions, d).
        keys, values: (sequences, key heads, tokens, d); fewer heads are shared by groups.
        mask: (sequences, 1 or heads, positions, tokens), true where a query sees a key, or None.
        scale: of the scores.
        causal: whether a position sees only the tokens up to itself.
        bits: of queries and keys.
        smoothed: whether means are taken out before anything is rounded.
    """
    heads = keys.shape[1]
    seen = _seen(query, keys, mask, causal)
    any_sees = seen.any(2).any(1, keepdim=True)[..., None]
    (key_rest, _), (value_rest, value_mean) = (_centred(x.float(), any_sees & smoothed) for x in (keys, values))
    codes, key_scale = _rounded(key_rest, bits)
    channel = (value_rest * any_sees).abs().amax(2, keepdim=True) / _FP8_LARGEST
    channel = torch.where(channel > 0, channel, torch.ones_like(channel))
    v8 = (value_rest / channel).clamp(-_FP8_LARGEST, _FP8_LARGEST).to(_FP8).float()
    outputs = []
    for start in range(0, query.shape[2], _BLOCK):
        q = in_groups(query[:, :, start : start + _BLOCK].float(), heads)
        mean = q.mean(3, keepdim=True) * smoothed
        q_codes, q_scale = _rounded(q - mean, bits)
        scores = integer_product(q_codes.flatten(2, 3), codes).view(*q.shape[:4], -1)
        scores = scores * q_scale * key_scale.mT[:, :, None]
        scores = (scores + mean @ key_rest.mT[:, :, None]) * scale
        sees = seen[:, :, start : start + _BLOCK]
        sees = sees[:, :, None] if sees.shape[1] == 1 else in_groups(sees, heads)
        scores = scores.masked_fill(~sees, -torch.inf)
        p = (scores - scores.amax(-1, keepdim=True)).exp()
        p8 = (p * _FP8_LARGEST).to(_FP8).float() / _FP8_LARGEST
        y = (p8 @ v8[:, :, None]) * channel[:, :, None] / p.sum(-1, keepdim=True) + value_mean[:, :, None]
        outputs.append(y.flatten(1, 2))
    return torch.cat(outputs, 2).to(query.dtype)


def integer_product(a: Tensor, b: Tensor) -> Tensor:
    """A B^T of int8 (..., m, d) and (..., n, d), exact, as float32 (..., m, n)."""
    if a.device.type != "cpu" or a.shape[-1] % 8 or b.shape[-2] % 8:
        # Sums below 2^24 are exact in float32: up to 1,040 products of 127 x 127.
        dtype = torch.float32 if a.shape[-1] <= 1040 else torch.float64
        return (a.to(dtype) @ b.to(dtype).mT).float()
    pairs = zip(a.flatten(0, -3), b.flatten(0, -3), strict=True)
    return torch.stack([torch._int_mm(x, y.mT) for x, y in pairs]).float().view(*a.shape[:-1], b.shape[-2])


def _rounded(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes (..., d) int8 and the scale of each row (..., 1)."""
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().amax(-1, keepdim=True) / largest
    codes = (x / torch.where(scale > 0, scale, torch.ones_like(scale))).round().clamp(-largest, largest)
    return codes.nan_to_num().to(torch.int8), scale


def _centred(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """x minus its mean over valid tokens, and the mean (sequences, heads, 1, d)."""
    mean = torch.where(valid, x, torch.zeros_like(x)).sum(2, keepdim=True) / valid.sum(2, keepdim=True).clamp_min(1)
    return x - mean, mean


def _seen(query: Tensor, keys: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Which keys a query sees, (1 or sequences, 1 or heads, positions, tokens)."""
    if mask is not None:
        return mask
    every = torch.ones(1, 1, query.shape[2], keys.shape[2], dtype=torch.bool, device=query.device)
    return every.tril() if causal else every
