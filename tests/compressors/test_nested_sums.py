"""Sums known from one decomposition: the curve is that of what is built."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS
from eckart.compressors._nested_sums import MOST
from support import hard
from support.blocks_and_sums import NOTHING, dense, shapes


@pytest.mark.parametrize("name", ["monarch", "kronecker"])
@shapes
def test_the_curve_is_that_of_what_is_built(name: str, shape: tuple[int, int]) -> None:
    weight = hard.normal(*shape, seed=1)
    family = METHODS[name].entry(weight, NOTHING)
    every = len(family.tails) - 1
    previous = family.zero_error
    assert previous == pytest.approx(float(weight.square().sum()))
    for terms in range(1, every + 1):
        fitted = family.build(terms)
        error = float((weight - dense(fitted.structure)).square().sum())
        assert error == pytest.approx(fitted.error, rel=1e-9, abs=1e-20)
        assert error <= previous
        previous = error
        assert fitted.structure.cost() == family.cost(terms)
    torch.testing.assert_close(dense(family.build(every).structure), weight)
    assert family.errors.tolist() == [float(family.tails[t]) for t in family.sizes]


@pytest.mark.parametrize("name", ["monarch", "kronecker"])
@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_only_terms_that_pay_are_offered(name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = hard.normal(*shape).to(dtype)
    family = METHODS[name].entry(weight, NOTHING)
    limit = weight.numel() * weight.element_size()
    assert len(family.sizes) <= MOST
    assert all(cost.bytes < limit for cost in family.costs)
    every = len(family.tails) - 1
    if family.sizes:
        step = family.sizes[0]
        assert family.sizes[-1] + step > every or family.cost(family.sizes[-1] + step).bytes >= limit
    else:
        assert family.cost(1).bytes >= limit
    for terms in (0, -1, every + 1):
        with pytest.raises(ValueError, match=f"terms={terms}: a matrix of shape .* has 1 to {every} terms"):
            eckart.fit(weight, name, terms=terms)


def test_what_is_built_does_not_share_memory_with_the_family() -> None:
    weight = hard.normal(12, 16)
    for name in ("monarch", "kronecker"):
        family = METHODS[name].entry(weight, NOTHING)
        for terms in (1, 2, len(family.tails) - 1):
            before = dense(family.build(terms).structure).clone()
            with torch.no_grad():
                for p in family.build(terms).structure.parameters():
                    p.zero_()
            assert torch.equal(dense(family.build(terms).structure), before)
