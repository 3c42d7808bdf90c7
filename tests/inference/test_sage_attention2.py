"""Integer attention: its identity in float64, its roundings written out, and near exact attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import eckart
from eckart.errors import Refused
from eckart.inference.sage_attention2 import integer_product, sage_attention
from eckart.models.transformers_attention import exact_attention
from support.adapting import ids
from support.tiny import tiny_llama


def draw(heads: int, tokens: int, seed: int, shift: float = 0.0, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, heads, tokens, size, generator=generator)
    return x + shift * torch.randn(2, heads, 1, size, generator=generator)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_means_fall_out_of_the_softmax() -> None:
    q, k = draw(1, 40, 0, 3).double(), draw(1, 40, 1, 3).double()
    qm, km = q.mean(2, keepdim=True), k.mean(2, keepdim=True)
    smoothed = (q - qm) @ (k - km).mT + qm @ (k - km).mT
    assert torch.allclose(smoothed.softmax(-1), (q @ k.mT).softmax(-1), atol=1e-14)


@pytest.mark.parametrize("bits", [4, 8])
def test_roundings_are_those_of_the_paper(bits: int) -> None:
    """One head, one block of queries, every rounding by itself."""
    q, k, v = (x[:1] for x in (draw(1, 40, 0, 2), draw(1, 40, 1, 2), draw(1, 40, 2, 2)))
    largest = 2 ** (bits - 1) - 1

    def integers(x: Tensor) -> Tensor:
        step = x.abs().amax(-1, keepdim=True) / largest
        return (x / step).round() * step

    def float8(x: Tensor) -> Tensor:
        return x.to(torch.float8_e4m3fn).float()

    qm, km, vm = (x.mean(2, keepdim=True) for x in (q, k, v))
    scores = 0.25 * (integers(q - qm) @ integers(k - km).mT + qm @ (k - km).mT)
    scores = scores.masked_fill(~torch.ones(40, 40, dtype=torch.bool).tril(), -torch.inf)
    p = (scores - scores.amax(-1, keepdim=True)).exp()
    channel = (v - vm).abs().amax(2, keepdim=True) / 448
    y = (float8(p * 448) / 448) @ (float8((v - vm) / channel) * channel) / p.sum(-1, keepdim=True) + vm
    found = sage_attention(q, k, v, None, 0.25, True, bits)
    # A sum that is rounded otherwise may move an entry to the next float8.
    assert distance(found, y) < 2e-3


@pytest.mark.parametrize("kind", ["causal", "whole", "mask", "mask of heads"])
@pytest.mark.parametrize("tokens", [40, 200])
def test_near_exact_attention(kind: str, tokens: int) -> None:
    q, k, v = draw(4, tokens, 0, 2), draw(2, tokens, 1, 2), draw(2, tokens, 2, 2)
    shape = (2, 4 if kind == "mask of heads" else 1, tokens, tokens)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) > 0.3 if kind.startswith("mask") else None
    expected = exact_attention(q, k, v, mask, 0.25, kind == "causal")
    eight, four = (sage_attention(q, k, v, mask, 0.25, kind == "causal", bits) for bits in (8, 4))
    assert distance(eight, expected) < 0.02
    assert distance(eight, expected) < distance(four, expected) < 0.2
    rough = sage_attention(q, k, v, mask, 0.25, kind == "causal", 4, smoothed=False)
    assert distance(rough, expected) > 1.5 * distance(four, expected)


def test_what_no_query_sees_has_no_part() -> None:
    q, k, v = draw(2, 40, 0), draw(2, 40, 1), draw(2, 40, 2)
    mask = (torch.arange(40) >= 8).expand(2, 1, 40, 40)
    expected = sage_attention(q, k, v, mask, 0.25, False)
    k[:, :, :8], v[:, :, :8] = 1e6, -1e6
    assert torch.equal(sage_attention(q, k, v, mask, 0.25, False), expected)


@pytest.mark.parametrize("shape", [(32, 64, 40), (5, 16, 7), (3, 12, 8)])
def test_products_are_exact(shape: tuple[int, int, int]) -> None:
    m, d, n = shape
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-127, 128, (2, 3, r, d), generator=generator, dtype=torch.int8) for r in (m, n))
    assert torch.equal(integer_product(a, b), (a.long() @ b.long().mT).float())


def test_what_is_not_finite_is_computed_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = tiny_llama(), ids(2, 40)
    with torch.inference_mode():
        expected = model(tokens).logits
        with eckart.integer_attention(model, least=1):
            assert not torch.equal(model(tokens).logits, expected)
        monkeypatch.setattr(
            "eckart.inference.sage_attention2.sage_attention",
            lambda query, *others: torch.full_like(query, torch.nan),
        )
        with eckart.integer_attention(model, least=1):
            assert torch.allclose(model(tokens).logits, expected, atol=1e-5)


def test_a_mask_that_is_added_is_not_taken_for_one_that_hides() -> None:
    model, tokens = tiny_llama(), ids(2, 12)
    bias = torch.randn(2, 1, 12, 12).masked_fill(~torch.ones(12, 12, dtype=torch.bool).tril(), -1e9)
    with torch.inference_mode():
        expected = model(tokens, attention_mask=bias).logits
        with eckart.integer_attention(model, least=1):
            assert torch.equal(model(tokens, attention_mask=bias).logits, expected)


def test_decoding_and_options() -> None:
    model, prompt = tiny_llama(), ids(2, 9)
    with torch.inference_mode():
        expected = model.generate(prompt, max_new_tokens=5, do_sample=False)
        with eckart.integer_attention(model):
            assert torch.equal(model.generate(prompt, max_new_tokens=5, do_sample=False), expected)
    for bits in (2, 16, "8"):
        with pytest.raises(Refused, match="8 or 4"), eckart.integer_attention(model, bits):  # type: ignore[arg-type]
            pass
    with pytest.raises(Refused, match="least"), eckart.integer_attention(model, least=0):
        pass


def test_bfloat16_and_long_heads() -> None:
    q, k, v = (draw(2, 16, seed, size=16).bfloat16() for seed in range(3))
    found = sage_attention(q, k, v, None, 0.25, True)
    assert found.dtype == torch.bfloat16
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    assert distance(found.float(), expected) < 0.05


def test_padding_in_front_leaves_the_other_tokens_in_integers() -> None:
    model, tokens = tiny_llama().eval(), ids(2, 24)
    mask = torch.ones_like(tokens)
    mask[0, :6] = 0  # a token of padding sees nothing, and nothing comes out
    with torch.no_grad():
        exact = model(tokens, attention_mask=mask).logits
        with eckart.integer_attention(model, bits=4, least=1):
            found = model(tokens, attention_mask=mask).logits
    assert torch.isfinite(found).all()
    assert not torch.allclose(found[1], exact[1], rtol=0, atol=1e-6)
    assert not torch.allclose(found[0, 6:], exact[0, 6:], rtol=0, atol=1e-6)


def test_contexts_inside_tiles_are_refused() -> None:
    model = tiny_llama().eval()
    with eckart.tiled(model), pytest.raises(Refused, match="was replaced already"), eckart.integer_attention(model):
        pass
