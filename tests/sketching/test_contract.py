"""What every sketch does, over the register: seeds, the global generators, inputs, kinds and dtypes."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from eckart.errors import Refused
from eckart.sketching.contract import SKETCHES, SketchCard
from support.results import arrays, same

CARDS = [pytest.param(card, id=name) for name, card in SKETCHES.items()]


def called(card: SketchCard, problem: dict[str, Any], seed: int = 5) -> Any:
    return card.entry(**problem, **({"generator": seed} if card.draws else {}))


def problem_of(card: SketchCard) -> dict[str, Any]:
    return dict(card.problem(np.random.default_rng(0)))


@pytest.mark.parametrize("card", CARDS)
def test_a_seed_is_all_that_it_depends_on(card: SketchCard) -> None:
    problem = problem_of(card)
    first = called(card, problem)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    same(first, called(card, problem), rtol=0, atol=0)
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    if card.draws:
        rng = np.random.default_rng(5)
        same(first, card.entry(**problem, generator=rng), rtol=0, atol=0)
        with pytest.raises(ValueError, match="RandomState"):
            card.entry(**problem, generator=np.random.RandomState(0))


@pytest.mark.parametrize("card", CARDS)
def test_inputs_stay_what_they_are(card: SketchCard) -> None:
    problem = problem_of(card)
    held = {name: copy.deepcopy(value) for name, value in problem.items() if not callable(value)}
    called(card, problem)
    for name, value in held.items():
        if isinstance(value, np.ndarray) or sparse.issparse(value):
            same(value, problem[name], rtol=0, atol=0)


def as_kind(problem: dict[str, Any], kind: str) -> dict[str, Any]:
    """The problem with its dense arrays in another dtype, or as tensors."""
    made = {}
    for name, value in problem.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            value = torch.from_numpy(value.copy()) if "torch" in kind else value
            value = value.to(torch.float32) if kind == "torch32" else value
            value = value.astype(np.float32) if kind == "float32" else value
        made[name] = value
    return made


@pytest.mark.parametrize("card", CARDS)
def test_results_are_of_the_kind_that_came(card: SketchCard) -> None:
    problem = problem_of(card)
    if not any(isinstance(value, np.ndarray) and value.dtype.kind == "f" for value in problem.values()):
        pytest.skip("it takes no dense arrays")
    exact = called(card, problem)
    for kind in ("float32", "torch64", "torch32"):
        found = called(card, as_kind(problem, kind))
        value = getattr(found, "value", found)
        for each in [] if sparse.issparse(value) else arrays(value):
            assert isinstance(each, torch.Tensor) == ("torch" in kind)
            if "float" in str(each.dtype):
                assert str(each.dtype).endswith("64" if kind == "torch64" else "32")
        if kind == "torch64":
            same(value, getattr(exact, "value", exact), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("card", CARDS)
def test_nan_is_refused(card: SketchCard) -> None:
    problem = problem_of(card)
    for name, value in problem.items():
        if sparse.issparse(value) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            bad = value.copy()
            (bad.data if sparse.issparse(bad) else bad.reshape(-1))[0] = np.nan
            with pytest.raises(ValueError, match="NaN"):
                called(card, {**problem, name: bad})


WRONG: dict[type, tuple[Any, ...]] = {
    int: ("a", None, float("nan"), 2.5, -3, True, [1]),
    float: ("a", None, float("nan"), [0.5], True),
    str: ("no such", 3, None),
    tuple: ("ab", None, [float("nan")], ["a"], 3.0),
}


def wrong_options(function: Any, values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Options by name with values of another type, no number, or below zero where they count."""
    parameters = inspect.signature(function).parameters
    return [
        (name, wrong)
        for name, value in ({name: each.default for name, each in parameters.items()} | values).items()
        for wrong in WRONG.get(type(value), ())
        if name not in ("generator", "random_state")
        and (wrong is not None or "None" not in str(parameters[name].annotation))
    ]


@pytest.mark.parametrize("card", CARDS)
def test_options_that_are_none_are_refused_by_name(card: SketchCard) -> None:
    problem = problem_of(card)
    for name, value in wrong_options(card.entry, problem):
        with pytest.raises(Refused, match=name):
            called(card, {**problem, name: value})
    for fitting in card.fittings:
        planted = fitting.planted(np.random.default_rng(0))
        for name, value in wrong_options(fitting.entry, dict(planted.options)):
            with pytest.raises(Refused, match=name):
                fitting.entry(**{**planted.options, name: value}).fit(**planted.arguments)


BEYOND = {"spgemm-rowwise-hash": "entries of a product are no floats any more", "sketched-sqp": "it calls functions"}


@pytest.mark.parametrize("card", [p for p in CARDS if p.id not in BEYOND])
@pytest.mark.parametrize("exponent", [-560, 300])
def test_the_size_of_numbers_does_not_matter(card: SketchCard, exponent: int) -> None:
    problem = problem_of(card)
    large = {
        name: value * 2.0**exponent
        for name, value in problem.items()
        if sparse.issparse(value) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")
    }
    value = called(card, {**problem, **large})
    for each in arrays(getattr(value, "value", value)):
        assert np.isfinite(np.asarray(each)).all()
