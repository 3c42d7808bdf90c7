"""A cache of 4-bit integers: the codes written out, and attention as over what they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import eckart
from eckart.errors import Refused
from eckart.inference._coded_cache import cache_bytes
from eckart.inference.fireq_cache import Channels, Int4Code, Ranges, cache_ranges
from support.adapting import close, ids
from support.tiny import tiny_llama

HEADS, SIZE = 3, 8


def draw(heads: int, tokens: int = 9, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-2, 1, SIZE)
    return torch.randn(2, heads, tokens, SIZE, generator=generator) * sizes + sizes


def channels(seed: int) -> Channels:
    ranges = Ranges(draw(HEADS, seed=seed))
    ranges.add(draw(HEADS, seed=seed))
    return ranges.centred()


def rounded(x: Tensor, c: Channels, group: int) -> Tensor:
    """Entry by entry: (x - m) / s to -8..7 times a scale that float8 can hold."""
    unit = 64 / 7 / 448
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for h in range(x.shape[1]):
            for t in range(x.shape[2]):
                z = (x[b, h, t] - c.mean[h]) / c.scale[h]
                for g in range(0, SIZE, group):
                    part = z[g : g + group]
                    step = float((part.abs().max() / 7 / unit).to(torch.float8_e4m3fn).float() * unit)
                    codes = (part / (step or 1)).round().clamp(-8, 7)
                    out[b, h, t, g : g + group] = codes * step
                out[b, h, t] = out[b, h, t] * c.scale[h] + c.mean[h]
    return out


@pytest.mark.parametrize("group", [2, 4, 128])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_over_the_rounded_keys_and_values(group: int, causal: bool) -> None:
    query, keys, values = draw(2 * HEADS, seed=1), draw(HEADS, seed=2), draw(HEADS, seed=3)
    both = channels(2), channels(3)
    group = min(group, SIZE)
    expected = F.scaled_dot_product_attention(
        query,
        *(rounded(x, c, group).repeat_interleave(2, 1) for x, c in zip((keys, values), both, strict=True)),
        is_causal=causal,
        scale=0.01,
    )
    code = Int4Code(*both, group)
    held = code.encode(keys, values)
    assert all(t.dtype == torch.uint8 and t.shape == (2, 1, 9, HEADS * (SIZE // 2 + SIZE // group)) for t in held)
    assert torch.allclose(code.attend(query, *held, None, 0.01, causal), expected, atol=1e-5)


def test_ranges_are_those_of_all_that_was_seen() -> None:
    x, y = draw(HEADS, seed=4), draw(HEADS, 5, seed=5)
    ranges = Ranges(x)
    ranges.add(x)
    ranges.add(y)
    every = torch.cat([x, y], 2).transpose(0, 1).flatten(1, 2)
    found = ranges.centred()
    assert torch.allclose(found.mean, every.mean(1), atol=1e-5)
    assert torch.allclose(found.scale, (every - every.mean(1, keepdim=True)).abs().amax(1), rtol=1e-4)
    assert torch.equal(ranges.about_zero().scale, every.abs().amax(1))
    assert not ranges.about_zero().mean.any()


def test_a_scale_shared_by_a_pair_commutes_with_the_rotation() -> None:
    """R (k / s) = (R k) / s where s_i = s_{i + d/2}: before or after the rotation is the same, as FireQ needs."""
    angle = torch.arange(SIZE // 2, dtype=torch.float64).repeat(2)
    k = torch.randn(SIZE, dtype=torch.float64)

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2)
        return x * angle.cos() + torch.cat([-second, first]) * angle.sin()

    shared = torch.rand(SIZE // 2, dtype=torch.float64).repeat(2) + 0.5
    assert torch.allclose(turned(k / shared), turned(k) / shared)
    other = torch.rand(SIZE, dtype=torch.float64) + 0.5
    assert not torch.allclose(turned(k / other), turned(k) / other)


def test_hard_keys() -> None:
    keys = torch.zeros(1, HEADS, 4, SIZE)
    keys[:, :, 1], keys[:, :, 2, 0] = 1e30, torch.nan
    still = Channels(torch.zeros(HEADS, SIZE), torch.zeros(HEADS, SIZE))
    code = Int4Code(still, still, 128)
    _, held = code.encode(keys, keys)
    found = code._unpack(held, HEADS, torch.float32)
    assert not found[:, :, [0, 3]].any()
    assert found[:, :, 2].isnan().all()
    assert found[:, :, 1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pieces_give_what_the_whole_gives_in_fewer_bytes(dtype: torch.dtype) -> None:
    model, tokens = tiny_llama().to(dtype), ids(2, 40)
    with torch.inference_mode():
        dense = cache_bytes(model(tokens, use_cache=True).past_key_values)
        with eckart.int4_cache(model, ids(8, 32)):
            whole = model(tokens, use_cache=False).logits
            start = model(tokens[:, :21], use_cache=True)
            end = model(tokens[:, 21:], past_key_values=start.past_key_values, use_cache=True)
            found = torch.cat([start.logits, end.logits], 1)
            assert torch.equal(model.generate(tokens, max_new_tokens=3)[:, :40], tokens)
    assert cache_bytes(end.past_key_values) == dense * 5 // (8 * torch.finfo(dtype).bits // 8)
    if dtype == torch.float32:
        assert close(found, whole)


def test_what_cannot_be_is_refused() -> None:
    model = tiny_llama()
    for group in (0, 1.5, 3):
        with pytest.raises(Refused, match="group"), eckart.int4_cache(model, ids(8, 32), group):  # type: ignore[arg-type]
            pass
    with pytest.raises(Refused, match="no tokens"), eckart.int4_cache(model, ids(0, 8)):
        pass
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[0] = torch.inf
    with pytest.raises(Refused, match="NaN or infinite"):
        cache_ranges(model, ids(8, 32))
