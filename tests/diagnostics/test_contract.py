"""What every diagnostic keeps to: its columns and their types, bad input, seeds, and what cannot change its numbers."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eckart.budget.product_time import Product, Timed
from eckart.diagnostics.contract import (
    DIAGNOSTICS,
    MATRIX_SUBJECTS,
    SUBJECTS,
    Change,
    Curvature,
    DiagnosticCard,
    Examples,
    Matrix,
    Pairs,
    Pool,
    Timings,
    Value,
    Windows,
    diagnostic,
    diagnostics_of,
    look,
)
from eckart.errors import Refused
from eckart.linalg.spectrum import spectrum
from support import hard

NAMES = list(DIAGNOSTICS)
TYPES = {"number": float, "integer": int, "boolean": bool, "string": str, "numbers": float, "integers": int}


def market() -> dict[str, Tensor]:
    """The hard matrices, and some on which there is something to fit."""
    general = hard.normal(70, 90, seed=1)
    return {
        **hard.weights(),
        **hard.refused(),
        **hard.ends(),
        "noise": general,
        "noise-bf16": general.bfloat16(),
        "noise-tiny": general * 1e-140,
        "noise-vanishing": general * 1e-170,
        "noise-huge": general * 1e140,
        "noise-overflowing": general * 1e170,
        "constant": torch.full((60, 80), 0.5),
        "large-zero": torch.zeros(60, 80),
        "large-rank-one": hard.normal(60, 1) @ hard.normal(1, 80),
        "large-orthogonal": hard.orthogonal(64),
        "long-row": hard.normal(1, 300),
        "heavy": hard.with_spectrum(80, 60, torch.arange(1, 61).double() ** -2),
        "signs": hard.normal(60, 60).sign(),
    }


def subjects(of: str, w: Tensor) -> Iterator[Callable[[], object]]:
    """What diagnostics of a subject may be given that comes of a matrix; `Refused` where there is none."""
    other = torch.where(torch.arange(w.shape[1]) % 3 == 0, 2 * w, w)
    if of == "matrix":
        yield lambda: Matrix(w, spectrum(w))
        yield lambda: Matrix(w, spectrum(w, exact=0))
    elif of == "eigenvalues":
        yield lambda: spectrum(w)
    elif of == "windows":
        for side in (1, 5, 50, 500):
            yield lambda side=side: (spectrum(w), Windows(w, side))[1]
        yield lambda: (spectrum(w), Windows(w[:, :, None, None].expand(-1, -1, 2, 2), 5))[1]
    elif of == "change":
        for base, tuned in ((w, w), (w, other), (other, w), (w, torch.zeros_like(w)), (w, -w), (w, w.T)):
            yield lambda base=base, tuned=tuned: Change(base, tuned)
    elif of == "hidden states":
        yield lambda: w
    elif of == "timings":
        yield lambda: timings(w)
    elif of == "examples":
        yield lambda: Examples(w)
        yield lambda: Examples(w, torch.arange(len(w)) % 3)
    elif of == "curvature":
        yield lambda: least_squares(w)
    elif of == "pool":
        yield lambda: pool(w)
        yield lambda: pool(w, entropy=torch.linspace(0, 1, len(w)), labelled=(2, 0))
    else:
        for first, second in ((w, w), (w, other[:, :1]), (w, torch.zeros_like(w))):
            yield lambda first=first, second=second: finite(Pairs.gathered([(first, second)]))


def timings(w: Tensor) -> Timings:
    """Products of matrices of the shape of one, and of others; a time that is a number of it, and so may be none."""
    out, columns = w.shape
    shapes = {(out, columns), (columns, out), (2 * out, columns)}
    products = [Product("dense", m, n, t, 4 * m * n, m * n) for m, n in sorted(shapes) for t in (1, 8)]
    first = float(w[0, 0])
    return Timings([Timed(p, 1e-6 + 1e-10 * p.moved + min(0.0, first)) for p in products])


def least_squares(w: Tensor) -> Curvature:
    """The Hessians of squared errors of some rows, each twice its outer product with itself."""
    rows = w.double()[:4]
    return Curvature([lambda v, x=x: 2 * x * (x @ v) for x in rows], 1, w.shape[1])  # type: ignore[misc]


def pool(w: Tensor, **more: Any) -> Pool:
    """A pool of the rows, by their inner products."""
    x = w.double()
    return Pool(x.square().sum(1), lambda i: x @ x[i], min(5, max(1, len(w) - 2)), **more)


def finite(pairs: Pairs) -> Pairs:
    """Features are finite and of moderate size, which those of a kernel are."""
    if not torch.isfinite(pairs.joint).all() or not 1e-100 < float(pairs.joint.abs().max()) < 1e100:
        raise Refused("no features")
    return pairs


def given(card: DiagnosticCard) -> Iterator[tuple[str, object]]:
    for name, w in market().items():
        for i, make in enumerate(subjects(card.of, w)):
            try:
                yield f"{name} {i}", make()
            except Refused:
                continue


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_it_says_or_it_refuses(name: str) -> None:
    card, answered = DIAGNOSTICS[name], 0
    for where, subject in given(card):
        try:
            numbers = card.entry(subject)
        except Refused:
            continue
        answered += 1
        assert list(numbers) == list(card.gives), where
        for column, value in numbers.items():
            kind = card.gives[column].kind
            values = value if kind in ("numbers", "integers") else [value]
            assert all(v is None or type(v) is TYPES[kind] for v in values), (where, column, value)
        assert all(math.isfinite(v) for v in flat(numbers.values())), (where, numbers)
        assert isinstance(card.doubt(subject, numbers), str)
        if answered < 4:
            assert card.entry(subject) == numbers, where
    assert answered > 3


def flat(values: Iterable[Value]) -> Iterator[float]:
    """All numbers, those in lists too."""
    for value in values:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, int | float):
            yield value


@pytest.mark.parametrize("name", NAMES)
def test_what_is_given_stays_as_it_is(name: str) -> None:
    w = hard.normal(70, 60)
    kept = w.clone()
    for make in subjects(DIAGNOSTICS[name].of, w):
        try:
            DIAGNOSTICS[name].entry(make())
        except Refused:
            continue
    assert torch.equal(w, kept)


# Of the diagnostics that look at singular values: columns that say how large these are, or which side is which.
OF_SIZE = {"sv_max", "sv_min", "lambda_max", "norm", "log_norm", "spectral_norm", "log_spectral_norm"}
OF_SIZE |= {"mp_sigma", "mp_edge", "xmin", "xmax", "alpha_weighted", "log_alpha_norm", "singular_values"}
OF_SIZE |= {"difference_norm"}
SWAPPED = {"overlap_left": "overlap_right", "overlap_right": "overlap_left"}
OF_A_SIDE = {"intruders", "cosines"}


def of_matrix(card: DiagnosticCard, w: Tensor, tuned: Tensor) -> object:
    if card.of == "change":
        return Change(w, tuned)
    return {"matrix": Matrix(w, spectrum(w)), "eigenvalues": spectrum(w), "windows": Windows(w, 60)}[card.of]


INVARIANT = ("energy", "farms", "intruder-dimensions", "marchenko-pastur", "movement", "power-law", "spectrum")


@pytest.mark.parametrize("name", INVARIANT)
def test_neither_scale_nor_transposition_matters(name: str) -> None:
    card = DIAGNOSTICS[name]
    w = hard.with_spectrum(80, 120, torch.arange(1, 81).double() ** -0.5)
    tuned = w + 0.05 * hard.normal(80, 120, seed=3)
    numbers = card.entry(of_matrix(card, w, tuned))
    scaled = card.entry(of_matrix(card, 8 * w, 8 * tuned))
    turned = card.entry(of_matrix(card, w.T, tuned.T))
    for column, value in numbers.items():
        if column not in OF_SIZE:
            assert alike(scaled[column], value), column
        if column not in OF_A_SIDE:
            assert alike(turned[SWAPPED.get(column, column)], value), column


def alike(one: Value, two: Value) -> bool:
    return one == two if isinstance(two, str) else bool(one == pytest.approx(two, rel=1e-9))


@pytest.mark.parametrize("name", [card.name for card in diagnostics_of("hidden states")])
def test_hidden_states_may_be_scaled_and_moved(name: str) -> None:
    x = hard.normal(40, 25)
    numbers, other = DIAGNOSTICS[name].entry(x), DIAGNOSTICS[name].entry(3 * x + hard.normal(1, 25, seed=2))
    assert dict(other) == pytest.approx(dict(numbers))
    assert all(type(value) is float for value in numbers.values())  # a layer's row is the mean over sequences


@pytest.mark.parametrize("name", [card.name for card in diagnostics_of("pairs")])
def test_pairs_may_come_in_any_order(name: str) -> None:
    x, y = hard.normal(50, 6), hard.normal(50, 4, seed=1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    one, two = (DIAGNOSTICS[name].entry(Pairs.gathered([p])) for p in ((x, y), (x[order], y[order])))
    assert dict(two) == pytest.approx(dict(one))


def test_columns_of_a_row_have_one_meaning() -> None:
    for together in (MATRIX_SUBJECTS, ("hidden states",), ("pairs",)):
        names = [column for card in diagnostics_of(*together) for column in card.gives]
        assert len(names) == len(set(names))
        assert not {"name", "layer_type", "shape", "notes", "curve", "layer", "tokens", "dimension"} & set(names)


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_they_are(name: str) -> None:
    card = DIAGNOSTICS[name]
    assert card.of in SUBJECTS
    assert card.paper
    assert card.summary.endswith((".", ":"))
    for column, said in card.gives.items():
        assert said.about, column
        assert not said.about.endswith("."), column
        assert said.kind == "number" or said.unit in ("", "rank"), column
    assert not (said.short or said.mean or said.extremes) or said.kind in ("number", "integer")


def test_papers_do_not_know_each_other() -> None:
    package = Path(import_module("eckart.diagnostics").__file__ or "").parent
    papers = {path.stem for path in package.glob("*.py") if not path.stem.startswith("_")} - {"contract"}
    for paper in papers:
        tree = ast.parse((package / f"{paper}.py").read_text(encoding="utf-8"))
        known = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not known & {f"eckart.diagnostics.{other}" for other in papers}, paper


def test_a_refusal_and_a_doubt_are_notes() -> None:
    def entry(subject: object) -> dict[str, float]:
        if subject is None:
            raise Refused("there is nothing")
        return {"x": math.pi}

    said = {"of": "matrix", "gives": {}, "paper": "none"}
    card = DiagnosticCard(
        name="one", entry=entry, noun="number", doubt=lambda subject, numbers: f"{subject}: {numbers['x']:.2f}", **said
    )
    assert look(card, None) == ({}, ["no number: there is nothing"])
    assert look(card, 3) == ({"x": math.pi}, ["3: 3.14"])
    with pytest.raises(ValueError, match="'two' is of 'thing'; there are matrix"):
        diagnostic("two", paper="none", of="thing", gives={})
