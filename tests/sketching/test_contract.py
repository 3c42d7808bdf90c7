"""What every sketch does, over the register: seeds, inputs, kinds, sparse and Dask, limits, hard input, memory."""

from __future__ import annotations

import copy
import inspect
import tracemalloc
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


def told(card: SketchCard, problem: dict[str, Any]) -> tuple[Any, str]:
    """What comes out, and what is said where nothing does."""
    try:
        return called(card, problem), ""
    except Refused as refused:
        return None, str(refused)


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


@pytest.mark.parametrize("card", CARDS)
def test_at_its_limit_it_is_exact(card: SketchCard) -> None:
    for seed in range(2):
        planted = card.limit(np.random.default_rng(seed))
        found = card.entry(**planted.arguments, **({"generator": seed} if card.draws else {}))
        assert planted.error(found) <= planted.within


def matrices(problem: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arguments that are matrices, written out."""
    return {
        name: value.toarray() if sparse.issparse(value) else value
        for name, value in problem.items()
        if sparse.issparse(value) or (isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind == "f")
    }


FORMATS = {"csr": sparse.csr_array, "csc": sparse.csc_matrix, "coo": sparse.coo_array, "dense": np.array}


@pytest.mark.parametrize("card", CARDS)
def test_sparse_is_what_dense_is_or_is_refused_with_advice(card: SketchCard) -> None:
    problem = problem_of(card)
    expected = called(card, problem)
    for name, matrix in matrices(problem).items():
        for form, made in FORMATS.items():
            found, words = told(card, {**problem, name: made(matrix)})
            if words and form != "dense":
                assert "is sparse" in words
                assert "toarray()" in words
            else:
                same(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("card", CARDS)
def test_blocks_of_dask_are_the_whole_or_are_refused_by_name(card: SketchCard) -> None:
    dask_array = pytest.importorskip("dask.array")
    problem = problem_of(card)
    expected = called(card, problem)
    for name, matrix in matrices(problem).items():
        found, words = told(card, {**problem, name: dask_array.from_array(matrix, chunks=(7, 3))})
        if words:
            assert "compute()" in words
        else:
            same(found, expected, rtol=1e-9, atol=1e-9)


def spoilt(x: np.ndarray) -> dict[str, np.ndarray]:
    """Graphs and other symmetric matrices with what graphs have; tables with rows that are alike, or no numbers."""
    n = len(x)
    if x.shape != (n, n) or (x != x.T).any():
        twins, empty = x.copy(), x.copy()
        twins[1::2], empty[n // 2] = x[0], 0
        return {"rows alike": twins, "an empty row": empty, "zeros": 0 * x, "one column": x[:, :1], "one row": x[:1]}
    order = np.r_[0, 0, np.arange(2, n)]
    hub, alone, apart = x.copy(), x.copy(), x.copy()
    hub[0, 1:] = hub[1:, 0] = x.max()
    alone[0] = alone[:, 0] = 0
    apart[: n // 2, n // 2 :] = apart[n // 2 :, : n // 2] = 0
    found = {"a hub": hub, "a node without edges": alone, "two parts": apart, "two nodes alike": x[order][:, order]}
    return found | {"no edges": 0 * x, "one node": x[:1, :1]}


@pytest.mark.parametrize("card", CARDS)
def test_hard_input_gives_finite_numbers_or_is_refused(card: SketchCard) -> None:
    problem = problem_of(card)
    forms = {name: spoilt(matrix) for name, matrix in matrices(problem).items()}
    for how in {how for each in forms.values() for how in each}:
        given = {name: each[how] for name, each in forms.items() if how in each}
        found, words = told(card, {**problem, **given})
        for each in [] if words else arrays(getattr(found, "value", found)):
            assert np.isfinite(np.asarray(each)).all(), how


def larger(problem: dict[str, Any], n: int) -> dict[str, Any]:
    """The first matrix with n rows, and what has an entry for each of its rows: a graph is a ring, sparse."""
    name, matrix = next(iter(matrices(problem).items()))
    rows = len(matrix)
    if matrix.shape == (rows, rows) and (matrix == matrix.T).all():
        ring = sparse.diags_array([1.0, 1.0, 3.0, 1.0, 1.0], offsets=[1 - n, -1, 0, 1, n - 1], shape=(n, n))
        made: Any = ring.tocsr()
    else:
        made = np.resize(matrix, (n, matrix.shape[1]))
        made = sparse.csr_array(made) if sparse.issparse(problem[name]) else made
    vectors = {k: np.resize(v, n) for k, v in problem.items() if np.ndim(v) == 1 and len(v) == rows}
    return {**problem, **vectors, name: made}


@pytest.mark.parametrize("card", CARDS)
def test_nothing_of_the_size_of_all_pairs_of_rows_is_held(card: SketchCard) -> None:
    problem, n = problem_of(card), 1500
    if not matrices(problem):
        pytest.skip("it takes no matrices")
    few = {"iterations": 20} if "iterations" in inspect.signature(card.entry).parameters else {}
    given = larger(problem, n) | few
    tracemalloc.start()
    called(card, given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n * 8 / 4
