"""CoSpaDi against least squares in the metric."""

from __future__ import annotations

import math

import pytest
import torch

import eckart
from eckart import METHODS, Metric, Statistics
from eckart.compressors.cospadi import signals
from eckart.linalg.dictionary import largest, least_squares_atoms
from eckart.structures import Masked
from eckart.structures.transposed import apply_transposed
from support import hard
from support.blocks_and_sums import dense, moment, shapes, statistics


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)], ids=str)
def test_signals_stand_for_the_matrix_in_the_metric(shape: tuple[int, int]) -> None:
    weight, C = hard.normal(*shape), moment(shape[1])
    y = signals(weight, C)
    gram = weight @ C @ weight.T
    torch.testing.assert_close(y @ y.T, gram * shape[0] / gram.trace())
    assert (y.square().sum(0).diff() <= 1e-12).all()
    # The best dictionary of any codes is the same, and so is its error up to that factor.
    codes = hard.normal(shape[0], 4) * largest(hard.normal(shape[0], 4, seed=1), 2)
    other = (y - codes @ least_squares_atoms(codes, y)).square().sum()
    error = Metric(right=C).error(weight - codes @ least_squares_atoms(codes, weight))
    torch.testing.assert_close(error * shape[0] / gram.trace(), other)
    assert not signals(torch.zeros(shape).double(), C).any()


def test_signals_on_a_few_lines_are_recovered() -> None:
    # Each output is a multiple of one of two atoms.
    atoms = hard.normal(2, 10)
    codes = torch.zeros(50, 2, dtype=torch.float64)
    codes[torch.arange(50), torch.arange(50) % 2] = hard.normal(50, seed=1)
    weight = codes @ atoms
    structure = eckart.fit(weight, "cospadi", statistics=statistics(10), terms=1)
    difference = weight - dense(structure)
    assert Metric(right=moment(10)).error(difference) <= 1e-10 * Metric(right=moment(10)).error(weight)


@shapes
def test_cospadi_stores_s_of_2s_atoms_for_every_output(shape: tuple[int, int]) -> None:
    weight, known = hard.normal(*shape, seed=8), statistics(shape[1])
    family = METHODS["cospadi"].entry(weight, known)
    errors = family.errors
    assert (errors.diff() <= 0).all()
    assert len(family.sizes) <= 12
    for s, cost in zip(family.sizes, family.costs, strict=True):
        structure = family.build(s).structure
        codes, atoms = structure.operands()
        assert isinstance(codes, Masked)
        assert codes.shape == (shape[0], 2 * s)
        assert atoms.shape == (2 * s, shape[1])
        assert len(codes.values) == s * shape[0]
        assert cost == structure.cost()
        assert cost.bytes == 8 * s * (shape[0] + 2 * shape[1]) + shape[0] * math.ceil(2 * s / 8)
        x = hard.normal(3, shape[1])
        torch.testing.assert_close(structure(x), x @ dense(structure).T)
        torch.testing.assert_close(apply_transposed(structure, structure(x)), structure(x) @ dense(structure))
    dense_bytes = weight.numel() * 8
    if family.sizes:
        assert family.costs[-1].bytes < dense_bytes
        assert METHODS["cospadi"].entry(weight, known).build(family.sizes[-1]).error < family.zero_error


def test_cospadi_fits_the_metric() -> None:
    weight = hard.normal(60, 40, seed=9)
    known, white = statistics(40), Statistics(input_second_moment=torch.eye(40, dtype=torch.float64))
    here, there = (eckart.fit(weight, "cospadi", statistics=k, terms=8) for k in (known, white))
    metric = Metric(right=known.input_second_moment)
    assert metric.error(weight - dense(here)) < 0.5 * metric.error(weight - dense(there))
    assert Metric().error(weight - dense(there)) < Metric().error(weight - dense(here))
