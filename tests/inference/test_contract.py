"""Every registered way to compute against one suite: the same outputs, in generation too, and nothing left behind.

An approximate way gives the same outputs at its limit, where it has one, and other ones near them by default.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.inference.contract import INFERENCE, InferenceCard
from support.adapting import close, ids
from support.tiny import tiny_llama, tiny_qwen3_moe
from tests.support.elsewhere import DEVICE, elsewhere


def compressed() -> nn.Module:
    model = tiny_llama()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {"dense": tiny_llama, "compressed": compressed, "experts": tiny_qwen3_moe}
OPTIONS: dict[str, dict[str, Any]] = {"lora-fast-gradient": {"degree": 6, "tolerance": float("inf")}}
"""Of those whose defaults refuse models such as these."""
SAME = [name for name, card in INFERENCE.items() if card.exact or card.limit]
APPROXIMATE = [name for name, card in INFERENCE.items() if not card.exact]
everywhere = pytest.mark.parametrize("name", INFERENCE)
models = pytest.mark.parametrize("kind", MODELS)


def context(card: InferenceCard, model: nn.Module, **options: object) -> AbstractContextManager[list[str]]:
    return card.entry(model, *([ids(8, 32)] if card.calibrated else []), **options)


def entered(
    card: InferenceCard, model: nn.Module, act: Callable[[], Tensor], **options: object
) -> tuple[list[str], Tensor]:
    """The modules that compute otherwise inside, and what `act` gives there."""
    with context(card, model, **options) as names, torch.inference_mode():
        return list(names), act()


def traces(model: nn.Module) -> dict[str, Any]:
    """What could be left behind on a model: attributes, hooks, gradients asked for, another attention."""
    found: dict[str, Any] = {
        path: (set(vars(m)), len(m._forward_pre_hooks), len(m._forward_hooks)) for path, m in model.named_modules()
    }
    found["gradients"] = [p.requires_grad for p in model.parameters()]
    return found | {"attention": model.config._attn_implementation}


@pytest.mark.parametrize("name", SAME)
@models
def test_outputs_are_the_same_inside_and_after(name: str, kind: str) -> None:
    model, tokens = MODELS[kind](), ids(3, 21)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    before = traces(model)
    with torch.inference_mode():
        expected = model(tokens).logits
    names, found = entered(INFERENCE[name], model, lambda: model(tokens).logits, **INFERENCE[name].limit)
    assert names
    assert set(names) <= before.keys()
    assert close(found, expected)
    assert traces(model) == before
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())
    with torch.inference_mode():
        assert torch.equal(model(tokens).logits, expected)


@everywhere
def test_outputs_on_another_device_are_those_on_the_cpu(name: str) -> None:
    tokens, found = ids(3, 21), []
    with elsewhere():
        for device in (torch.device("cpu"), DEVICE):
            model = tiny_llama(tied=False).to(device)
            there = tokens.to(device)
            _, logits = entered(INFERENCE[name], model, lambda m=model, t=there: m(t).logits, **OPTIONS.get(name, {}))
            assert logits.device == device
            found.append(logits.cpu())
    assert close(found[1], found[0], 1e-4)


@pytest.mark.parametrize("name", SAME)
@models
def test_generation_is_the_same(name: str, kind: str) -> None:
    model, prompt = MODELS[kind](), ids(2, 9)

    def generate() -> Tensor:
        answer: Tensor = model.generate(prompt, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
        return answer

    with torch.inference_mode():
        expected = generate()
    assert torch.equal(entered(INFERENCE[name], model, generate, **INFERENCE[name].limit)[1], expected)


@pytest.mark.parametrize("name", APPROXIMATE)
@models
def test_an_approximation_is_near_by_default(name: str, kind: str) -> None:
    """A long prompt and a token decoded behind it: other outputs, and the same again afterwards."""
    model, tokens = MODELS[kind](), ids(2, 160)
    before, state = traces(model), {key: tensor.clone() for key, tensor in model.state_dict().items()}

    def act() -> Tensor:
        start = model(tokens[:, :-1], use_cache=True)
        end = model(tokens[:, -1:], past_key_values=start.past_key_values, use_cache=True)
        return torch.cat([start.logits, end.logits], 1)

    with torch.inference_mode():
        expected = act()
    names, found = entered(INFERENCE[name], model, act, **OPTIONS.get(name, {}))
    assert set(names) <= before.keys()
    assert not close(found, expected)
    assert float((found - expected).norm()) < 0.8 * float(expected.norm())
    assert traces(model) == before
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())
    with torch.inference_mode():
        assert torch.equal(act(), expected)


@everywhere
def test_a_model_without_such_modules_is_refused(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    with pytest.raises(Refused, match="Sequential"), context(INFERENCE[name], model):
        pass


@everywhere
def test_training_is_refused(name: str) -> None:
    model = tiny_llama().train()
    before = traces(model)
    with pytest.raises(Refused, match=r"model\.eval\(\)"), context(INFERENCE[name], model):
        pass
    assert traces(model) == before


@everywhere
def test_the_model_is_left_as_it_was_where_something_fails_inside(name: str) -> None:
    model = tiny_llama()
    before = traces(model)
    with pytest.raises(RuntimeError, match="inside"), context(INFERENCE[name], model):
        raise RuntimeError("inside")
    assert traces(model) == before
