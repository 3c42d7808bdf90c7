"""Tucker-2 against filters of its kind, and the bound of the truncated decomposition."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS, Metric, Statistics
from eckart.compressors.tucker_2 import expression as tucker
from eckart.compressors.tucker_2 import rank_path
from eckart.jobs.compress.report import expression
from eckart.linalg.tucker import hooi, modes, tails
from support import hard
from support.convolutions import family, normal_filters


def test_without_patches_tucker_2_is_a_chain_of_three_that_equals_the_svd() -> None:
    weight = hard.normal(32, 40)
    structure = eckart.fit(weight, "tucker-2", ranks=10)
    assert expression(structure) == "Chain(Dense, Dense, Dense)"
    torch.testing.assert_close(structure.to_dense(), eckart.fit(weight, "svd", rank=5).to_dense(), rtol=1e-8, atol=1e-8)


def test_tucker_2_finds_a_kernel_of_its_kind_and_is_exact_at_full_ranks() -> None:
    u, v = hard.orthogonal(10)[:, :3], hard.orthogonal(9, 1)[:, :2]
    filters = torch.einsum("pqyx,op,cq->ocyx", normal_filters(3, 2, 3, 3), u, v)
    assert family("tucker-2", filters).errors[-1] <= 1e-20
    structure = family("tucker-2", filters).build(5).structure
    torch.testing.assert_close(structure.to_dense().detach(), filters.flatten(1), rtol=1e-9, atol=1e-9)
    general = normal_filters(5, 4, 2, 2)
    torch.testing.assert_close(tucker(*hooi(general, 5, 4)).to_dense().detach(), general.flatten(1))


@pytest.mark.parametrize("shape", [(8, 12, 3, 3), (12, 8, 3, 3), (8, 3, 3, 3), (3, 20, 2, 2)], ids=str)
def test_tucker_2_keeps_the_bound_of_the_truncated_decomposition(shape: tuple[int, ...]) -> None:
    filters = normal_filters(*shape)
    found, cut = family("tucker-2", filters), [tails(matrix) for matrix in modes(filters)]
    bounds = {p + q: cut[0][p] + cut[1][q] for p, q in rank_path(*cut)}
    expressions = set()
    for size in found.sizes:
        structure = (
            METHODS.find("tucker-2").entry(filters.flatten(1), Statistics(patch=shape[2:])).build(size).structure
        )
        assert Metric().error(filters.flatten(1) - structure.to_dense()) <= bounds[size] * (1 + 1e-9)
        expressions.add(expression(structure))
    # Where there are few channels, a factor of full rank is left out.
    assert (len(expressions) > 1) == (min(shape[:2]) <= 3)
