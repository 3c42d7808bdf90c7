"""A loss without logits is the model's own, where it can be had at all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from eckart.errors import Refused
from eckart.jobs.learning.head_loss import without_logits
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama, tiny_mixtral

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def batch(seed: int = 0) -> dict[str, Tensor]:
    ids = torch.randint(0, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(seed))
    labels = ids.clone()
    labels[0, :5] = -100
    return {"input_ids": ids, "labels": labels}


def computed(model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    torch.manual_seed(0)  # of dropout
    loss = model(**batch(1)).loss
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("made", [tiny_llama, lambda: tiny_llama(tied=False), tiny_gpt2, tiny_mixtral])
def test_loss_and_gradients_are_those_of_the_model(made: object) -> None:
    model = made().train()  # type: ignore[operator]
    loss, gradients = computed(model)
    held = copy.copy(vars(model))
    with without_logits(model, batch()) as so:
        assert so
        assert model.training
        found, others = computed(model)
        with torch.no_grad():
            assert model(**batch()).logits.shape[-1] != VOCABULARY
    torch.testing.assert_close(found, loss)
    for a, b in zip(gradients, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(computed(model)[0], loss, rtol=0, atol=0)
    assert model(**batch()).logits.shape[-1] == VOCABULARY
    assert set(vars(model)) - set(held) <= {"_loss_function"}
    assert "forward" not in vars(model.get_output_embeddings())


def test_where_logits_are_not_just_the_head_s_nothing_is_changed() -> None:
    capped = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=2.0))
    scaled = GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0))
    hooked, other = tiny_llama(), tiny_llama()
    hooked.get_output_embeddings().register_forward_hook(lambda *_: None)
    other.loss_function = lambda logits, labels, **_: logits.float().square().mean()
    for model in (capped, scaled, hooked, other):
        expected = model(**batch(1)).loss.detach()
        with without_logits(model, batch()) as so:
            assert not so
            assert torch.equal(model(**batch(1)).loss.detach(), expected)
    with without_logits(nn.Linear(2, 2), {}) as so:
        assert not so


def test_a_head_whose_outputs_are_changed_later_is_refused() -> None:
    model = tiny_llama()
    with without_logits(model, batch()) as so:
        assert so
        handle = model.get_output_embeddings().register_forward_hook(lambda _, __, found: 2 * found)
        with pytest.raises(Refused, match="does something to its logits on the way to its loss"):
            model(**batch(1))
        handle.remove()
        assert torch.isfinite(model(**batch(1)).loss)
