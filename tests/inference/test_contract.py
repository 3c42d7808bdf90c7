"""Every registered way to compute against one suite: the same outputs, in generation too, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.inference.contract import INFERENCE, InferenceCard
from support.adapting import close, ids
from support.tiny import tiny_llama, tiny_qwen3_moe


def compressed() -> nn.Module:
    model = tiny_llama()
    eckart.compress(model, "svd", keep=0.7)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {"dense": tiny_llama, "compressed": compressed, "experts": tiny_qwen3_moe}
everywhere = pytest.mark.parametrize("name", INFERENCE)
models = pytest.mark.parametrize("kind", MODELS)


def entered(card: InferenceCard, model: nn.Module, act: Callable[[], Tensor]) -> tuple[list[str], Tensor]:
    """The modules that compute otherwise inside, and what `act` gives there."""
    with card.entry(model) as names, torch.inference_mode():
        return list(names), act()


@everywhere
@models
def test_outputs_are_the_same_inside_and_after(name: str, kind: str) -> None:
    model, tokens = MODELS[kind](), ids(3, 21)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    with torch.inference_mode():
        expected = model(tokens).logits
    names, found = entered(INFERENCE[name], model, lambda: model(tokens).logits)
    assert names
    assert set(names) <= attributes.keys()
    assert close(found, expected)
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())
    with torch.inference_mode():
        assert torch.equal(model(tokens).logits, expected)


@everywhere
@models
def test_generation_is_the_same(name: str, kind: str) -> None:
    model, prompt = MODELS[kind](), ids(2, 9)

    def generate() -> Tensor:
        answer: Tensor = model.generate(prompt, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
        return answer

    with torch.inference_mode():
        expected = generate()
    assert torch.equal(entered(INFERENCE[name], model, generate)[1], expected)


@everywhere
def test_a_model_without_such_modules_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="Sequential"), INFERENCE[name].entry(nn.Sequential(nn.Linear(3, 3)).eval()):
        pass


@everywhere
def test_the_model_is_left_as_it_was_where_something_fails_inside(name: str) -> None:
    model = tiny_llama()
    attributes = [set(vars(module)) for module in model.modules()]
    with pytest.raises(RuntimeError, match="inside"), INFERENCE[name].entry(model):
        raise RuntimeError("inside")
    assert [set(vars(module)) for module in model.modules()] == attributes
