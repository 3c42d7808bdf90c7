"""SoKA against the SVD of the rearranged matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.adapters import soka
from eckart.structures import Kronecker
from support.one_layer import IN, OUT, normal, start


def test_soka_is_the_best_sum_of_kronecker_products() -> None:
    weight = normal(OUT, IN, seed=1).double()
    c, d = soka.sides(OUT, IN)
    assert (c, d) == (6, 6)
    found = start("soka", weight, 3)
    assert isinstance(found.path, Kronecker)
    assert found.rank == len(found.path.left)
    # The rearrangement by index: row (i, j) is block (i, j).
    rows = [weight[i * c : (i + 1) * c, j * d : (j + 1) * d].flatten() for i in range(OUT // c) for j in range(IN // d)]
    s = torch.linalg.svdvals(torch.stack(rows))
    error = torch.linalg.matrix_norm(weight - found.path.to_dense().detach())
    assert float(error) == pytest.approx(float(s[found.rank :].norm()), rel=1e-9)


def test_soka_takes_no_more_terms_than_it_needs() -> None:
    c, d = soka.sides(OUT, IN)
    two = sum(torch.kron(normal(OUT // c, IN // d, seed=i), normal(c, d, seed=i + 9)) for i in range(2))
    assert isinstance(two, Tensor)
    found = start("soka", two, 6)
    assert found.rank == 2
    torch.testing.assert_close(found.path.to_dense(), two, atol=1e-4, rtol=1e-4)
    # By hand: 0.9 of 6 equal squares are 6 terms; of 81 + 64 + 1 + ... they are 2, and the elbow is at the third.
    assert soka.enough(torch.ones(6).double()) == 6
    assert soka.enough(torch.tensor([9.0, 8.0, 1.0, 0.5, 0.2, 0.1]).double()) == 2
    assert soka.enough(torch.tensor([9.0]).double()) == 1
    assert soka.enough(torch.zeros(4).double()) == 1


def test_the_rank_rule_acts_on_a_matrix_that_decays_as_trained_ones_do() -> None:
    # Singular values i^-0.3: of 16 terms the first 14 have nine tenths of the squares (summed here by a loop).
    left, right = (torch.linalg.qr(normal(n, n, seed=n)).Q for n in (OUT, IN))
    s = [float(i) ** -0.3 for i in range(1, OUT + 1)]
    total, kept = sum(v * v for v in s[:16]), 0
    while sum(v * v for v in s[:kept]) < 0.9 * total:
        kept += 1
    c, d = soka.sides(OUT, IN)
    blocks = left @ torch.diag(torch.tensor(s)) @ right[:OUT]
    weight = blocks.reshape(OUT // c, IN // d, c, d).transpose(1, 2).reshape(OUT, IN)
    assert kept == 14
    assert start("soka", weight, 16).rank == kept


@pytest.mark.parametrize(
    ("out", "columns", "c"), [(1536, 576, 8), (384, 384, 8), (64, 147, 1), (30, 42, 6), (7, 11, 1)]
)
def test_a_term_has_the_numbers_of_one_rank(out: int, columns: int, c: int) -> None:
    assert soka.sides(out, columns) == (c, columns // c)
    assert (out // c) * (columns // (columns // c)) + c * (columns // c) == out + columns
