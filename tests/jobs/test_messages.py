"""What is given for a model, a batch, an option or a pattern and is none: each is refused with what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import eckart
from eckart.jobs.evaluate.quality import evaluate
from eckart.jobs.learning.loop import Training
from eckart.jobs.texts import Texts

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


class Holder:
    """As a pipeline or a trainer holds a model."""

    def __init__(self) -> None:
        self.model = net()


CALLS: dict[str, Callable[[Any], object]] = {
    "compress": lambda model: eckart.compress(model, "svd"),
    "adapt": eckart.adapt,
    "diagnose": eckart.diagnose,
    "compensate": lambda model: eckart.compensate(model, net(), 2),
    "mitigate_intruders": lambda model: eckart.mitigate_intruders(model, net(), 0.5),
    "save": lambda model: eckart.save(model, "/nowhere/at/all"),
    "evaluate": lambda model: evaluate(model, torch.ones(1, 4, dtype=torch.int64)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("gpt2", r"is 'gpt2', and a name is no model: load it .*from_pretrained\('gpt2'\)"),
        (Path("dir/model"), "a name is no model"),
        (None, "NoneType, and no torch.nn.Module"),
        (nn.Linear, r"is the class Linear: make one, Linear\(\.\.\.\)"),
        ((net(), "tokenizer"), "give the Sequential in it alone"),
        (Holder(), r"give it \.model"),
        ({"weight": X}, "a dict, and no torch.nn.Module"),
    ],
    ids=["name", "path", "none", "class", "pair", "holder", "tensors"],
)
def test_what_is_no_model(call: str, given: Any, says: str) -> None:
    with pytest.raises(eckart.Refused, match=says):
        CALLS[call](given)


LOADER = DataLoader(TensorDataset(X, X[:, 0]), batch_size=8)


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        ([(X, X[:, 0])], r"batch 0 is a tuple of 2 \(Tensor, Tensor\).*calibration=\[batch\[0\] for batch in loader\]"),
        (LOADER, "batch 0 is a list of 2"),
        (X, r"one tensor of float32 \(32, 8\).*calibration=\[batch, ...\]"),
        (torch.randn(2, 3, 8, 8), r"one tensor of float32 \(2, 3, 8, 8\)"),
        ({"input_ids": X}, r"one batch, of input_ids: put it into a list, calibration=\[batch\]"),
        ([X, "text"], "batch 1 is a str"),
        ([X.numpy()], r"torch\.from_numpy\(batch\)"),
        ([{"x": X, "text": ["a", "b"]}], "batch 0 holds 'text', which is a list and no tensor"),
        ([{"pixel_values": np.zeros((1, 3))}], "'pixel_values', which is a ndarray"),
        ([], "calibration is empty: give text"),
        (5, "calibration=5 is a int: give text"),
        ([None], "batch 0 is a NoneType: give text"),
        (__file__, "is the name of a file"),
        ("mixture", "is a name that the command line knows"),
        ("news", "is a name that the command line knows"),
    ],
)
def test_what_is_no_calibration(calibration: Any, says: str) -> None:
    model = net()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(eckart.Refused, match=says):
        eckart.compress(model, "kfac", keep=0.9, of="linear-parameters", calibration=calibration)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    "calibration",
    [
        [X],
        (X, X),
        DataLoader(X, batch_size=8),
        (batch for batch in (X, X)),
        DataLoader([{"input": row} for row in X], batch_size=8),
    ],
    ids=["list", "tuple", "loader", "generator", "loader of mappings"],
)
def test_what_is_a_calibration(calibration: Any) -> None:
    result = eckart.compress(net(), "wanda", keep=0.9, of="linear-parameters", calibration=calibration)
    assert type(result.model[0]) is not nn.Linear


WRONG: dict[type, list[Any]] = {
    str: [3, None, ["a"], b"a"],
    float: ["0.5", None, [0.5], True],
    int: ["3", 2.5, None, True],
    bool: ["yes", 1, None],
    tuple: [5, [1], None],
}


@pytest.mark.parametrize("kind", [eckart.Recipe, Texts, Training])
def test_options_of_another_type(kind: Any) -> None:
    """Every option of every dataclass of options, with values of every other type."""
    hints = get_type_hints(kind)
    for name, default in inspect.signature(kind).parameters.items():
        hint = hints[name]
        of = tuple if get_origin(hint) is tuple else (get_args(hint) or (hint,))[0]
        for value in WRONG[of]:
            if value is None and default.default is None:
                continue
            with pytest.raises(eckart.Refused, match=rf"^{name}=.* is a {type(value).__name__}, and .* wanted"):
                kind(**{name: value})
    assert kind(**{name: p.default for name, p in inspect.signature(kind).parameters.items()}) == kind()


def test_a_share_in_percent() -> None:
    assert eckart.Recipe(keep="80%", of="linear-parameters", floor=" 5 %") == eckart.Recipe(
        keep=0.8, of="linear-parameters", floor=0.05
    )  # type: ignore[arg-type]
    halves = [eckart.compress(net(), "svd", keep=keep, of="linear-parameters").choice for keep in (0.5, "50%")]
    assert halves[0] == halves[1]
    for wrong in ("80", "%", "a lot%", "800%", "nan%"):
        with pytest.raises(eckart.Refused, match="keep="):
            eckart.Recipe(keep=wrong, of="linear-parameters")  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    recipe = eckart.Recipe(keep=np.float32(0.5), of="linear-parameters", samples=np.int64(8))  # type: ignore[arg-type]
    assert (recipe.keep, recipe.samples) == (0.5, 8)


@pytest.mark.parametrize(
    ("pattern", "offered"),
    [
        ("qproj", "q_proj"),
        ("model.layer.0.self_attn.q_proj", r"model.layers.\*.self_attn.q_proj"),
        ("self_attention.q_proj", "self_attn.q_proj"),
        ("*.mpl.*", r"mlp.\*|\*.mlp"),
        ("K_PROJ", "k_proj"),
    ],
)
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_offers_the_nearest(pattern: str, offered: str, option: str) -> None:
    from support.tiny import tiny_llama

    with pytest.raises(eckart.Refused, match=rf"matches no matrix; did you mean '[^']*({offered})[^']*'\?"):
        eckart.compress(tiny_llama(), "svd", **{option: [pattern]})


@pytest.mark.parametrize("patterns", [5, [5], None, [None], {"a": 1}.values()])
def test_patterns_that_are_none(patterns: Any) -> None:
    for call in (eckart.compress, eckart.adapt, eckart.diagnose):
        with pytest.raises(eckart.Refused, match="is no pattern of names"):
            call(net(), include=patterns)


def test_a_model_that_is_compressed_already() -> None:
    """Nothing is left to do, or too little: both say why, and so does what is done to the rest."""
    whole = eckart.compress(net(), "svd", keep=0.7, of="linear-parameters").model
    with pytest.raises(eckart.Refused, match="matrices of Sequential are compressed already"):
        eckart.compress(whole, "svd", keep=0.7, of="linear-parameters")
    half = eckart.compress(net(), "svd", keep=0.9, of="linear-parameters", include=["0"]).model
    with pytest.raises(eckart.Refused, match=r"1 matrices are compressed already \(start from the .*cannot be met"):
        eckart.compress(half, "svd", keep=0.2, of="linear-parameters")
    again = eckart.compress(half, "svd", keep=0.95, of="linear-parameters")
    assert "compressed already" in again.coverage.sentence
