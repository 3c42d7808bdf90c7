"""What every estimator and solver of all families does: scikit-learn's checks, seeds, kinds, files, limits."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from eckart.errors import Refused
from eckart.estimators.contract import ESTIMATORS
from eckart.kernels.contract import KERNELS
from eckart.linalg.solution import Solution
from eckart.scikit.files import load, save
from eckart.scikit.planted import Planted
from eckart.sketching.contract import SKETCHES
from support.results import arrays, same

AnyCard = Any
"""A card with `kind` and `planted`."""
ALL: dict[str, AnyCard] = {
    **ESTIMATORS,
    **{name: card for name, card in KERNELS.items() if card.planted is not None},
    **{name: card.fittings[0] for name, card in SKETCHES.items() if card.fittings},
}
TABLES = [pytest.param(card, id=name) for name, card in ALL.items() if card.kind not in ("solver", "graph")]
GRAPHS = [pytest.param(card, id=name) for name, card in ALL.items() if card.kind == "graph"]
SOLVERS = [pytest.param(card, id=name) for name, card in ALL.items() if card.kind == "solver"]
CARDS = TABLES + GRAPHS + SOLVERS
TRIALS = [pytest.param(card, id=name) for name, card in ALL.items() if card.kind == "trials"]
CHECKED = [each for each in TABLES + GRAPHS if each not in TRIALS]
FEWER = {"functional-tucker": {"max_iter": 4}}
"""Options by which scikit-learn's checks, which ask for habits and not for convergence, take half of the time."""
SKIPPED = {"check_array_api_input", "check_set_output_transform_polars", "check_global_set_output_transform_polars"}
"""Checks that scikit-learn may leave out: tensors have tests here, and polars comes out by the same door as pandas."""


OF_SCIKIT_LEARN = re.compile(
    r"Input \w+ contains (NaN|infinity)|Found array with|Input sample_weight contains|Input y contains"
)
"""What its checks say of tables that it does not let through."""
NOT_MET: dict[str, dict[str, str]] = {
    "rotation-forest": {
        "check_sample_weight_equivalence_on_dense_data": "what a tree sees is drawn: weights are rows on average"
    }
}
"""Checks of scikit-learn that a card does not meet, and why; as its own forests do not."""


@contextmanager
def perhaps_refused() -> Iterator[None]:
    """What is inside may be refused, by name; an error of LAPACK, which is a ValueError too, is none."""
    try:
        yield
    except ValueError as error:
        if not isinstance(error, Refused) and not OF_SCIKIT_LEARN.search(str(error)):
            raise


def seeded(estimator: Any, seed: int = 0) -> Any:
    """An estimator whose random state is a seed, where it has one."""
    return estimator.set_params(random_state=seed) if "random_state" in estimator.get_params() else estimator


def draws(card: AnyCard) -> bool:
    return "generator" in card.entry.__annotations__


def found(card: AnyCard, planted: Planted, seed: int = 0) -> Any:
    """The fitted estimator, or the solver's solution; what does not converge on a planted problem is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        if card.kind != "solver":
            return seeded(card.entry(**planted.options), seed).fit(**planted.arguments)
        return card.entry(**planted.arguments, **({"generator": seed} if draws(card) else {}))


def planted_of(card: AnyCard, seed: int = 0) -> Planted:
    return card.planted(np.random.default_rng(seed))


@cache
def known(name: str) -> tuple[Planted, Any]:
    """What is planted first, and what is found there. Not to be changed."""
    planted = planted_of(ALL[name])
    return planted, found(ALL[name], planted)


def applied(card: AnyCard, fitted: Any, x: Any) -> Any:
    """What a fitted estimator says of rows."""
    if card.kind == "clusterer":
        return fitted.labels_
    if card.kind == "density":
        return fitted.score_samples(x)
    if card.kind == "graph":
        return fitted.sparsifier_
    return fitted.transform(x) if card.kind in ("transformer", "sums", "trials") else fitted.predict(x)


@pytest.mark.parametrize("card", CHECKED)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_finds_nothing_wrong(card: AnyCard) -> None:
    not_met = NOT_MET.get(card.name, {})
    fresh = card.entry(**FEWER.get(card.name, {}))
    results = check_estimator(fresh, expected_failed_checks=not_met, on_skip=None, on_fail=None)
    wrong = [f"{each['check_name']}: {each['exception']}" for each in results if each["status"] == "failed"]
    assert not wrong, "\n".join(wrong)
    assert {each["check_name"] for each in results if each["status"] == "xfail"} == not_met.keys()
    left_out = {each["check_name"] for each in results if each["status"] == "skipped"}
    assert left_out <= SKIPPED, left_out
    assert sum(each["status"] == "passed" for each in results) > 25


@pytest.mark.parametrize("card", CARDS)
def test_what_was_planted_is_found(card: AnyCard) -> None:
    planted, first = known(card.name)
    errors = [float(planted.error(first))]
    for seed in range(1, 10):
        planted = planted_of(card, seed)
        errors.append(float(planted.error(found(card, planted, seed))))
    assert np.median(errors) <= planted.within, errors


@pytest.mark.parametrize("card", CARDS)
def test_a_seed_is_all_that_it_depends_on(card: AnyCard) -> None:
    planted = planted_of(card)
    held = copy.deepcopy(dict(planted.arguments))
    first = known(card.name)[1]
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    again = found(card, planted)
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    for name, value in held.items():
        if isinstance(value, np.ndarray) or sparse.issparse(value):
            same(value, planted.arguments[name], rtol=0, atol=0)
    if card.kind == "solver":
        same(first.value, again.value, rtol=0, atol=0)
    else:
        x = planted.arguments["X"]
        same(applied(card, first, x), applied(card, again, x), rtol=0, atol=0)


@pytest.mark.parametrize("card", SOLVERS)
def test_a_solution_says_why_it_stopped(card: AnyCard) -> None:
    solution = known(card.name)[1]
    assert isinstance(solution, Solution)
    assert solution.converged
    assert solution.message


@pytest.mark.parametrize("card", TABLES)
def test_tensors_come_back_as_tensors(card: AnyCard) -> None:
    planted, fitted = known(card.name)
    dense = {name: value for name, value in planted.arguments.items() if isinstance(value, np.ndarray)}
    tensors = {name: torch.from_numpy(value.copy()) for name, value in dense.items()}
    again = seeded(card.entry(**planted.options)).fit(**{**planted.arguments, **tensors})
    if card.kind == "clusterer" or "X" not in tensors:
        return
    said = applied(card, again, tensors["X"])
    assert isinstance(said, torch.Tensor)
    np.testing.assert_allclose(said.numpy(), applied(card, fitted, dense["X"]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("card", TABLES + GRAPHS)
def test_what_is_saved_comes_back(card: AnyCard, tmp_path: Path) -> None:
    planted, fitted = known(card.name)
    save(fitted, tmp_path / "fitted")
    loaded = load(tmp_path / "fitted")
    assert type(loaded) is type(fitted)
    assert vars(loaded).keys() == vars(fitted).keys()
    for name, value in vars(fitted).items():
        if isinstance(value, np.ndarray):
            assert getattr(loaded, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(loaded, name), value)
    x = planted.arguments["X"]
    same(applied(card, loaded, x), applied(card, fitted, x), rtol=0, atol=0)
    save(clone(fitted), tmp_path / "fresh")
    assert load(tmp_path / "fresh").get_params() == clone(fitted).get_params()


def test_a_model_of_rank_zero_is_saved_too(tmp_path: Path) -> None:
    fitted = ALL["rpca-ialm"].entry().fit(np.zeros((6, 4)))
    save(fitted, tmp_path / "zero")
    assert load(tmp_path / "zero").components_.shape == (0, 4)


@pytest.mark.parametrize("card", [each for each in TABLES if "Dask" not in getattr(each.values[0], "takes", "")])
def test_a_dask_array_is_refused_by_name(card: AnyCard) -> None:
    dask = pytest.importorskip("dask.array")
    with pytest.raises((Refused, TypeError), match=r"(?i)dask"):
        card.entry().fit(dask.ones((20, 4), chunks=5), np.arange(20) % 2)


@pytest.mark.parametrize("card", [each for each in TABLES if each.values[0].kind == "transformer"])
def test_rows_of_a_dask_array_are_told_block_by_block(card: AnyCard) -> None:
    dask = pytest.importorskip("dask.array")
    planted, fitted = known(card.name)
    x = planted.arguments.get("X")
    if not isinstance(x, np.ndarray):
        pytest.skip("no dense table")
    told = applied(card, fitted, dask.from_array(x, chunks=(len(x) // 3, -1)))
    same(told.compute(), applied(card, fitted, x), rtol=1e-4, atol=1e-6)


WITH_STEPS = [each for each in TABLES if {"max_iter", "tol"} <= each.values[0].entry().get_params().keys()]


@pytest.mark.parametrize("card", WITH_STEPS)
def test_one_step_too_few_is_said_once(card: AnyCard) -> None:
    planted = planted_of(card)
    fresh = seeded(card.entry(**{**planted.options, "max_iter": 1}))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fresh.fit(**planted.arguments)
    told = [each for each in said if issubclass(each.category, ConvergenceWarning)]
    assert not [each for each in said if issubclass(each.category, RuntimeWarning)], said
    assert len(told) == (not fresh.converged_)
    assert fresh.n_iter_ <= getattr(fresh, "n_init", 1)


@pytest.mark.parametrize("card", TRIALS)
def test_an_estimator_of_trials_keeps_to_the_habits_of_scikit_learn(card: AnyCard) -> None:
    planted = planted_of(card)
    x = planted.arguments["X"]
    fresh = seeded(card.entry(**planted.options))
    assert clone(fresh).get_params() == fresh.get_params()
    assert not [name for name in vars(fresh) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        fresh.transform(x)
    params = copy.deepcopy(fresh.get_params())
    assert fresh.fit(**planted.arguments) is fresh
    assert fresh.get_params() == params
    said = fresh.transform(x)
    assert len(said) == len(x)
    same(fresh.transform(x[3:5]), said[3:5], rtol=1e-9, atol=1e-12)
    same(clone(fresh).fit_transform(**planted.arguments), said, rtol=1e-9, atol=1e-12)
    for wrong in (x[0], x[:, :-1], x * np.nan):
        with pytest.raises(ValueError):
            fresh.transform(wrong)
    for spoilt in (0 * x, np.ones_like(x), x * 2.0**400, x * 2.0**-400, x[:1]):
        with np.errstate(all="ignore"), perhaps_refused():
            assert np.isfinite(card.entry(**planted.options).fit_transform(spoilt)).all()


def degenerate(x: np.ndarray) -> dict[str, np.ndarray]:
    """A table spoilt, of the same shape, or its first row; where entries are missing, all of a row or a column are."""
    gaps, x = np.isnan(x), np.nan_to_num(x)
    nothing = np.nan if gaps.any() else 0.0
    one = np.zeros_like(x)
    one[:, 0] = 1.0
    row, column = np.where(gaps, np.nan, x), np.where(gaps, np.nan, x)
    row[len(x) // 2], column[:, x.shape[1] // 2] = nothing, nothing
    return {
        "an empty row": row,
        "an empty column": column,
        "one sample": x[:1],
        "zero": np.zeros_like(x),
        "constant": np.ones_like(x),
        "one column": one,
        "huge": x * 2.0**500,
        "largest": x / max(np.abs(x).max(), 1e-9) * 1.7e308,
        "tiny": x * 2.0**-500,
        "rank one": np.outer(np.arange(1.0, 1 + len(x)), np.ones(x.shape[1])),
    }


@pytest.mark.parametrize("card", TABLES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_spoilt_tables_give_finite_numbers_or_are_refused(card: AnyCard) -> None:
    planted = planted_of(card)
    x = planted.arguments["X"]
    if sparse.issparse(x) or x.ndim != 2:
        return
    with np.errstate(all="ignore"):
        for name, spoilt in degenerate(np.asarray(x, np.float64)).items():
            rows = {k: v[: len(spoilt)] if np.ndim(v) else v for k, v in planted.arguments.items()}
            with perhaps_refused():
                fitted = seeded(card.entry(**planted.options)).fit(**{**rows, "X": spoilt})
                said = applied(card, fitted, spoilt)
                assert np.isfinite(np.asarray(said, np.float64)).all(), name


@pytest.mark.parametrize("card", SOLVERS)
def test_spoilt_problems_give_finite_numbers_or_are_refused(card: AnyCard) -> None:
    planted = planted_of(card)
    for name, value in planted.arguments.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fc":
            continue
        for factor in (0.0, 2.0**400, 2.0**-400, np.nan, np.inf):
            with np.errstate(all="ignore"), perhaps_refused():
                solution = card.entry(**{**planted.arguments, name: value * factor})
                assert np.isfinite(factor), f"{name} of {factor} went through"
                for each in arrays(solution.value):
                    assert np.isfinite(np.asarray(each)).all(), (name, factor)


def in_pairs(card: AnyCard, fitted: Any) -> bool:
    """Whether `meaning` is of pairs of rows: clusters, and scores from which rows are not told."""
    told = hasattr(fitted, "inverse_transform") and getattr(fitted, "fit_inverse_transform", True)
    return card.kind in ("clusterer", "sums", "trials") or (card.kind == "transformer" and not told)


def meaning(card: AnyCard, fitted: Any, x: Any) -> np.ndarray:
    """What is said of rows, whatever order, signs and axes what was found has: (rows, ...), or (rows, rows)."""
    if card.kind == "clusterer":
        return (fitted.labels_[:, None] == fitted.labels_).astype(float)
    if card.kind == "density":
        said = fitted.score_samples(x)
        return np.exp(said - said.max())
    if card.kind in ("regressor", "classifier"):
        return np.asarray(getattr(fitted, "predict_proba", fitted.predict)(x), np.float64)
    said = fitted.transform(x)
    if not in_pairs(card, fitted):
        return np.asarray(fitted.inverse_transform(said), np.float64)
    flat = np.asarray(said.toarray() if sparse.issparse(said) else said, np.float64).reshape(len(x), -1)
    products = flat @ flat.T
    return products / (np.linalg.norm(products) or 1.0)


def changed(card: AnyCard, given: dict[str, Any], how: str, pairs: bool) -> tuple[dict[str, Any], Any]:
    """The arguments of `fit` changed, and what its meaning becomes by that, a function of what it was."""
    x, rng = given["X"], np.random.default_rng(1)
    down, across = rng.permutation(len(x)), rng.permutation(x.shape[1])
    if how == "order of rows":
        rows = {k: v[down] if np.shape(v)[:1] == (len(x),) else v for k, v in given.items()}
        return rows, lambda said: said[down][:, down] if pairs else said[down]
    if how == "order of columns":
        turned = x[:, across]
        turned = turned[:, :, across] if card.kind == "trials" and x.shape[1] == x.shape[2] else turned
        return {**given, "X": turned}, lambda said: said[:, across] if said.shape == x.shape and not pairs else said
    if how == "float32":
        fewer = {k: v.astype(np.float32) if np.asarray(v).dtype == float else v for k, v in given.items()}
        return fewer, lambda said: said
    scaled = "y" if card.kind == "regressor" else "X"
    linear = card.kind in ("regressor", "transformer") and not pairs
    return {**given, scaled: 3.0 * given[scaled]}, lambda said: 3.0 * said if linear else said


HOW = {"order of rows": 1e-2, "order of columns": 1e-2, "scale": 1e-2, "float32": 1e-3}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("card", TABLES)
def test_what_a_table_means_does_not_depend_on_how_it_is_written(card: AnyCard, how: str) -> None:
    planted, fitted = known(card.name)
    x = planted.arguments.get("X")
    if not isinstance(x, np.ndarray) or x.dtype != float:
        pytest.skip("no table of numbers")
    given, becomes = changed(card, dict(planted.arguments), how, in_pairs(card, fitted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        again = meaning(card, seeded(card.entry(**planted.options)).fit(**given), given["X"])
    before = becomes(meaning(card, fitted, x))
    apart = np.linalg.norm(again - before) / np.linalg.norm(before)
    if how in planted.varies:
        assert apart > HOW[how], f"it does not vary: {apart:.1e}"
    else:
        assert apart <= HOW[how], f"{apart:.1e}"
