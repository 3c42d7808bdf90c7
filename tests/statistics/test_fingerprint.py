"""Fingerprints change with everything that a model's statistics depend on, and with nothing else."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eckart.statistics import Need
from eckart.statistics import fingerprint as module
from eckart.statistics.fingerprint import (
    data_fingerprint,
    model_fingerprint,
    sources,
    statistics_fingerprints,
    tensor_digests,
)
from support.statistics import tokens
from support.tiny import tiny_gpt2, tiny_llama
from support.zoo import outputs, zoo


class Plain(nn.Module):
    """A matrix, a buffer that is not saved, settings."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(40, 30)
        self.inner.weight.data = torch.arange(1200.0).view(30, 40)
        self.inner.bias.data.zero_()
        self.register_buffer("scale", torch.ones(3), persistent=False)
        self.power, self.names = 2.0, ("a", "b")
        self.activation: Any = torch.tanh
        self.drop = nn.Dropout(0.1)


NAMED = model_fingerprint(Plain())


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 1199), change=st.sampled_from([1.0, -1e-3, float("nan")]))
def test_every_number_counts(place: int, change: float) -> None:
    model = Plain()
    assert model_fingerprint(model) == NAMED
    model.inner.weight.data.view(-1)[place] += change
    assert model_fingerprint(model) != NAMED


@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.integers(0, 1199), min_size=2, max_size=2, unique=True))
def test_so_does_the_order_of_numbers(places: list[int]) -> None:
    model = Plain()
    flat = model.inner.weight.data.view(-1)
    flat[places] = flat[places[::-1]].clone()
    assert model_fingerprint(model) != NAMED


class Twin(Plain):
    """Another class with the same tensors."""


def other_bias(model: Plain) -> None:
    model.inner.bias = None


def as_view(model: Plain) -> None:
    model.inner.weight.data = model.inner.weight.data.T.contiguous().T


CHANGES: dict[str, Callable[[Plain], object]] = {
    "a buffer": lambda m: m.scale.mul_(2),
    "dtype": lambda m: m.double(),
    "mode": lambda m: m.eval(),
    "a setting": lambda m: setattr(m, "power", 3.0),
    "settings": lambda m: setattr(m, "names", ("b", "a")),
    "a function": lambda m: setattr(m, "activation", torch.relu),
    "an inner setting": lambda m: setattr(m.drop, "p", 0.2),
    "an inner class": lambda m: setattr(m, "drop", nn.AlphaDropout(0.1)),
    "a missing tensor": other_bias,
    "the shape": lambda m: setattr(m.inner.weight, "data", m.inner.weight.data.view(40, 30)),
    "a name": lambda m: setattr(m, "other", nn.Parameter(torch.ones(1))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_else_counts(change: str) -> None:
    model = Plain()
    CHANGES[change](model)
    assert model_fingerprint(model) != NAMED
    assert model_fingerprint(Twin()) != NAMED


def test_what_does_not_count() -> None:
    model = Plain()
    as_view(model)
    assert model_fingerprint(model) == NAMED
    assert model_fingerprint(copy.deepcopy(Plain())) == NAMED
    model.inner.weight.requires_grad_(False)
    model.register_forward_hook(lambda *_: None)
    assert model_fingerprint(model) == NAMED


def test_settings_of_language_models_count() -> None:
    llama = tiny_llama()
    found = {model_fingerprint(llama), model_fingerprint(tiny_gpt2()), model_fingerprint(tiny_llama(tied=False))}
    assert model_fingerprint(tiny_llama()) in found
    llama.set_attn_implementation("eager" if llama.config._attn_implementation != "eager" else "sdpa")
    found.add(model_fingerprint(llama))
    llama.config.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    found.add(model_fingerprint(llama))
    base = hf.LlamaModel(llama.config).eval()
    base.load_state_dict(llama.model.state_dict())
    found.add(model_fingerprint(base))
    assert len(found) == 6
    llama.config._name_or_path = llama.name_or_path = "elsewhere"
    assert model_fingerprint(llama) in found


@pytest.mark.parametrize("kind", zoo())
def test_running_a_model_changes_nothing(kind: str) -> None:
    model, batch = zoo()[kind]()
    before = model_fingerprint(model)
    with torch.no_grad():
        outputs(model, batch)
    assert model_fingerprint(model) == before == model_fingerprint(zoo()[kind]()[0])


def test_it_is_the_same_in_another_process() -> None:
    line = (
        "import torch; from eckart.statistics.fingerprint import model_fingerprint as f; torch.manual_seed(3); "
        "print(f(torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4))))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, env=environment, check=True)
    torch.manual_seed(3)
    assert found.stdout.strip() == model_fingerprint(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64]
)
def test_tensors_of_every_kind_have_a_digest(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randint(0, 2, (6, 50)).float().to(dtype)
    shapes = [x, x.T, x[:, ::2], x[0, 0], x[:0], x.view(50, 6), x.to(torch.float64).real]
    found = tensor_digests(shapes)
    assert len(set(found)) == len(shapes)
    assert found[1] == tensor_digests([x.T.contiguous()])[0]
    monkeypatch.setattr(module, "CHUNK", 16)
    changed = x.clone()
    changed.view(torch.uint8).view(-1)[-1] ^= 1
    assert tensor_digests([x])[0] != tensor_digests([changed])[0]
    assert tensor_digests([x, x])[0] == tensor_digests([x])[0]


def test_data_count_with_masks_labels_and_order() -> None:
    ids, ones = tokens(2, 6), torch.ones(2, 6).long()
    parts: list[list[Any]] = [
        [ids],
        [ids, ids],
        [tokens(2, 6, seed=1)],
        [ids.view(3, 4)],
        [ids.int()],
        [{"input_ids": ids}],
        [{"input_ids": ids, "attention_mask": ones}],
        [{"input_ids": ids, "attention_mask": ones.triu()}],
        [{"input_ids": ids, "token_type_ids": ones}],
        [{"input_ids": ids, "labels": ones}],
        [{"input_ids": ids, "labels": -100 * ones}],
        [{"input_ids": ids, "interpolate": True}],
        list(ids.split(1)),
        list(ids.flip(0).split(1)),
        [],
    ]
    assert len({data_fingerprint(part) for part in parts}) == len(parts)
    assert data_fingerprint([ids], [ids]) != data_fingerprint([ids, ids], []) != data_fingerprint([], [ids, ids])
    assert data_fingerprint([ids.clone()]) == data_fingerprint([ids])
    pair = {"a": ids, "b": ones}
    assert data_fingerprint([pair]) == data_fingerprint([dict(reversed(pair.items()))])


def test_requests_and_versions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [Need.INPUT_MEAN, Need.FISHER_ROWS]
    made = [
        statistics_fingerprints("m", "d", needs, 0)(["x"]),
        statistics_fingerprints("n", "d", needs, 0)(["x"]),
        statistics_fingerprints("m", "e", needs, 0)(["x"]),
        statistics_fingerprints("m", "d", needs[:1], 0)(["x"]),
        statistics_fingerprints("m", "d", needs, 1)(["x"]),
        statistics_fingerprints("m", "d", needs, 0)(["x", "y"]),
    ]
    assert statistics_fingerprints("m", "d", needs[::-1], 0)(["x"]) == made[0]
    monkeypatch.setattr(module, "sources", lambda *_: "another version")
    made.append(statistics_fingerprints("m", "d", needs, 0)(["x"]))
    assert len(set(made)) == len(made)


def test_the_code_has_a_name() -> None:
    found = [sources("eckart.statistics"), sources("eckart.layouts"), sources("eckart.models.own_text")]
    assert len(set(found)) == 3
    assert all(len(each) == 64 for each in found)


def test_tied_tensors_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def digests(tensors: Any) -> list[bytes]:
        seen.extend(tensors)
        return tensor_digests(seen)

    monkeypatch.setattr(module, "tensor_digests", digests)
    model = tiny_llama()
    model_fingerprint(model)
    own = {id(t) for t in [*model.parameters(), *model.buffers()]}
    assert len(seen) == len(own)
