"""Basis sharing against the best low rank of the stacked matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.compressors.contract import METHODS, Members
from eckart.statistics import Statistics
from support import hard


def test_one_basis_is_the_optimum_where_inputs_agree() -> None:
    """With the same inputs in both layers the pair is one stacked matrix, and its best low rank is known."""
    weights = tuple(hard.normal(12, 10, seed=i) for i in (1, 2))
    moment = hard.normal(40, 10, seed=3)
    moment = moment.T @ moment / 40
    family = METHODS["basis-sharing"].together["layers"](
        Members(weights, (Statistics(input_second_moment=moment),) * 2)
    )
    root = torch.linalg.cholesky(moment)
    tails = torch.linalg.svdvals(torch.cat(weights) @ root).square().flip(0).cumsum(0).flip(0)
    for size, error in zip(family.sizes, family.errors.tolist(), strict=True):
        if size < 10:
            assert error == pytest.approx(float(tails[size]), rel=1e-4)
        first, second = (part.structure.to_dense().detach().double() for part in family.build(size))
        seen = sum(float(((w - v) @ root).square().sum()) for w, v in zip(weights, (first, second), strict=True))
        assert seen == pytest.approx(error, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("weights", [hard.weights()[name] for name in ("zero", "rank-one")], ids=["zero", "rank-one"])
def test_one_basis_of_deficient_matrices(weights: Tensor) -> None:
    columns = weights.shape[1]
    known = Statistics(input_second_moment=torch.eye(columns).double())
    family = METHODS["basis-sharing"].together["layers"](Members((weights, weights), (known, known)))
    for part in family.build(list(family.sizes)[-1]):
        assert torch.allclose(part.structure.to_dense(), weights, atol=1e-9)
