"""Gradients of adapters through polynomial attention, and what of a model is computed by it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import eckart
from eckart.errors import Refused
from eckart.inference.lora_fast_gradient import needed
from eckart.ops.polynomial_attention import worst
from support.adapting import ids
from support.tiny import tiny_llama


def gentle() -> nn.Module:
    """A model whose scores are small."""
    model = tiny_llama()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(0.05)
    return model


def gradients(model: nn.Module, adapter: eckart.Adapter, x: Tensor) -> list[Tensor]:
    loss = model(x, labels=x).loss
    return list(torch.autograd.grad(loss, adapter.trainable_parameters()))


def test_gradients_of_an_adapter_come_near_as_the_degree_grows() -> None:
    model, x = gentle(), ids(2, 40)
    adapter = eckart.adapt(model, "lora", rank=2, include=["*q_proj", "*v_proj"])
    with torch.no_grad():
        for p in adapter.trainable_parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    exact = torch.cat([g.flatten() for g in gradients(model, adapter, x)])
    errors = []
    for degree in (1, 2, 4, 6):
        with eckart.polynomial_attention(model, degree, tolerance=math.inf, least=8) as names:
            found = torch.cat([g.flatten() for g in gradients(model, adapter, x)])
        assert len(names) == 2
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-4


def test_an_attention_above_its_bound_is_refused_by_name_or_exact() -> None:
    model, x = tiny_llama(), ids(2, 40)
    with torch.inference_mode():
        expected = model(x).logits
        with (
            eckart.polynomial_attention(model, least=8),
            pytest.raises(Refused, match=r"model\.layers\.0\.self_attn: scores may be as large as 10 .* up to 0\.638"),
        ):
            model(x)
        with eckart.polynomial_attention(model, exact_above=True, least=8):
            assert torch.equal(model(x).logits, expected)
        with eckart.polynomial_attention(gentle(), tolerance=3.0, least=8):
            pass
    for options, words in (({"degree": 0}, "degree"), ({"tolerance": -1.0}, "tolerance"), ({"least": 0}, "least")):
        with pytest.raises(Refused, match=words), eckart.polynomial_attention(model, **options):
            pass


def test_padded_sequences_of_an_encoder() -> None:
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    model = BertModel(config).eval()
    x, mask = torch.arange(40).view(2, 20) % 50, torch.arange(20) < torch.tensor([[20], [13]])
    with torch.inference_mode():
        expected = model(x, attention_mask=mask.long()).last_hidden_state
        with eckart.polynomial_attention(model, degree=3, least=8):
            found = model(x, attention_mask=mask.long()).last_hidden_state
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-3)


def test_the_degree_that_is_needed() -> None:
    for bound in (0.1, 1.0, 12.0):
        degree = needed(bound)
        assert worst(bound, degree) <= 0.1
        assert degree == 1 or worst(bound, degree - 1) > 0.1
