"""Blocks on a diagonal against regressions."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS, Statistics
from eckart.compressors.block_diagonal import BLOCKS, spectral_order
from support import hard
from support.blocks_and_sums import dense, shapes, statistics


@shapes
@pytest.mark.parametrize("blocks", BLOCKS)
def test_every_block_is_a_regression_on_its_inputs(shape: tuple[int, int], blocks: int) -> None:
    weight, known = hard.normal(*shape, seed=7), statistics(shape[1])
    family = METHODS["block-diagonal"].entry(weight, known)
    if blocks not in family.sizes:
        assert blocks > min(shape) or shape[0] * shape[1] < 8 * blocks * blocks
        return
    got = dense(family.build(blocks).structure)
    rows, columns = (order.tensor_split(blocks) for order in spectral_order(weight))
    C = known.input_second_moment
    assert C is not None
    damped = C + 1e-3 * C.trace() / len(C) * torch.eye(len(C)).double()
    root = torch.linalg.cholesky(damped)  # rows of root^T are as good as inputs
    expected = torch.zeros_like(weight)
    for i, j in zip(rows, columns, strict=True):
        solution = torch.linalg.lstsq(root.T[:, j], root.T @ weight[i].T).solution
        expected[i[:, None], j] = solution.T
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)
    sizes = [len(run) for run in (*rows, *columns)]
    assert max(sizes[:blocks]) - min(sizes[:blocks]) <= 1
    assert max(sizes[blocks:]) - min(sizes[blocks:]) <= 1


@pytest.mark.parametrize("shape", [(16, 24), (18, 16)], ids=str)
def test_a_block_diagonal_matrix_in_any_order_is_recovered(shape: tuple[int, int]) -> None:
    weight = torch.block_diag(*hard.normal(2, shape[0] // 2, shape[1] // 2))
    generator = torch.Generator().manual_seed(0)
    weight = weight[torch.randperm(shape[0], generator=generator)][:, torch.randperm(shape[1], generator=generator)]
    structure = eckart.fit(weight, "block-diagonal", statistics=statistics(shape[1]), blocks=2)
    torch.testing.assert_close(dense(structure), weight, rtol=1e-8, atol=1e-9)


def test_white_inputs_leave_the_blocks_as_they_are() -> None:
    weight = hard.normal(12, 20)
    for C in (torch.eye(20), torch.zeros(20, 20)):
        known = Statistics(input_second_moment=C.double())
        got = dense(eckart.fit(weight, "block-diagonal", statistics=known, blocks=4))
        inside = got != 0
        assert inside.sum() == 12 * 20 / 4
        torch.testing.assert_close(got[inside], weight[inside])


def test_the_order_gathers_what_belongs_together() -> None:
    for seed in range(5):
        weight = hard.normal(40, 60, seed=seed) * torch.block_diag(torch.ones(20, 30), torch.ones(20, 30))
        weight += 0.2 * hard.normal(40, 60, seed=seed + 50)
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.randperm(40, generator=generator), torch.randperm(60, generator=generator)
        i, j = spectral_order(weight[rows][:, columns])
        assert {frozenset((rows[i[:20]] < 20).tolist()), frozenset((columns[j[:30]] < 30).tolist())} <= {
            frozenset({True}),
            frozenset({False}),
        }


def test_a_second_moment_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 5\) does not fit a weight of shape \(4, 6\)"):
        METHODS["block-diagonal"].entry(hard.normal(4, 6), Statistics(input_second_moment=torch.eye(5)))
    family = METHODS["cospadi"].entry(hard.normal(14, 16), Statistics(input_second_moment=torch.eye(5)))
    with pytest.raises(ValueError, match="5"):
        family.build(1)
