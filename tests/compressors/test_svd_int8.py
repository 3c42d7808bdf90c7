"""Low rank in two factors of 8 bits, against the eigenvectors."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS, Metric, Need
from eckart.compressors._int8_low_rank import Int8LowRank
from support import hard
from support.codes import relative
from support.layers import inputs, layer, statistics_of

SHAPES = pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16), (9, 150), (140, 136)], ids=str)


@SHAPES
def test_svd_int8_rounds_an_orthonormal_factor(shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    family = METHODS.find("svd-int8").entry(weight, statistics)
    assert isinstance(family, Int8LowRank)
    left = family.left.to_dense().detach()
    gram = left.T @ left
    gram = gram / gram[0, 0]
    torch.testing.assert_close(gram, torch.eye(len(gram)).double(), rtol=0, atol=0.02)
    # The columns are the leading eigenvectors of W C W^T.
    moment = weight @ statistics.get(Need.INPUT_SECOND_MOMENT) @ weight.T
    vectors = torch.linalg.eigh(moment)[1].flip(1)[:, : left.shape[1]]
    cosines = (torch.nn.functional.normalize(left, dim=0) * vectors).sum(0).abs()
    assert cosines[: len(cosines) // 2].min() > 0.999


def test_int8_lets_high_ranks_pay() -> None:
    weight, _, statistics = layer(192, 192)
    for dtype, top in ((torch.bfloat16, 176), (torch.float32, 192)):
        sizes = list(METHODS.find("svd-int8").entry(weight.to(dtype), statistics).sizes)
        assert sizes == list(range(8, top + 1, 8))
        assert sizes[-1] > 192 / 2


def test_int8_factors_of_a_short_dtype_do_not_overflow() -> None:
    weight = (hard.normal(32, 64) * 2e4).clamp(-6e4, 6e4).half()
    x = inputs(64)
    family = METHODS.find("svd-int8").entry(weight, statistics_of(x, inputs(32)))
    dense = family.build(32).structure.to_dense()
    assert torch.isfinite(dense).all()
    assert relative(Metric(), weight, dense) < 1e-3


def test_int8_ranks_outside_the_matrix_are_refused() -> None:
    weight, _, statistics = layer(10, 14)
    for rank in (0, 11):
        with pytest.raises(ValueError, match=f"rank={rank}.*ranks 1 to 10"):
            eckart.fit(weight, "svd-int8", rank=rank, statistics=statistics)


def test_int8_takes_the_best_of_the_ranks_where_rounding_rules() -> None:
    # Of rank two: what further ranks add is less than what rounding loses.
    weight = hard.normal(20, 2) @ hard.normal(2, 30, seed=1)
    family = METHODS.find("svd-int8").entry(weight, layer(20, 30)[2])
    assert (family.errors.diff() <= 0).all()
    for size, error in zip(family.sizes, family.errors, strict=True):
        assert family.build(size).error == pytest.approx(float(error), rel=1e-9)
