"""SoKA against the SVD of the rearranged matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.adapters import soka
from eckart.structures import Kronecker
from support.one_layer import IN, OUT, normal, one_layer, start


def test_soka_is_the_best_sum_of_kronecker_products() -> None:
    weight = normal(OUT, IN, seed=1).double()
    c, d = soka.sides(OUT, IN)
    assert (c, d) == (4, 6)
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
    _, adapter = one_layer("soka", rank=6)
    assert adapter.ranks["0"] == 6
    flat = torch.ones(6, dtype=torch.float64)
    assert soka.enough(flat, 60.0) == 6
    assert soka.enough(flat, 6.0) == 6
    assert soka.enough(torch.tensor([9.0, 8.0, 1.0, 0.5, 0.2, 0.1]).double(), 147.0) == 2
