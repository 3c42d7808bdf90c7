"""What every sketch does, over the register: seeds, the global generators, inputs, kinds and dtypes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

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
