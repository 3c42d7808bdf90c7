"""Functions of matrices without negative entries: every entry to its own digits."""

from __future__ import annotations

from math import lgamma

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.linalg.nonnegative import exponential, resolvent


def path(n: int) -> torch.Tensor:
    return torch.diag(torch.ones(n - 1, dtype=torch.float64), 1) + torch.diag(
        torch.ones(n - 1, dtype=torch.float64), -1
    )


def test_of_matrices_without_far_entries_they_are_those_of_torch() -> None:
    b = torch.rand(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scale in (1e-3, 1.0, 20.0):
        torch.testing.assert_close(exponential(scale * b, 1), torch.linalg.matrix_exp(scale * b).log())
    small = b / (1.05 * float(torch.linalg.eigvals(b).abs().max()))
    torch.testing.assert_close(resolvent(small), torch.linalg.inv(torch.eye(9) - small), rtol=1e-10, atol=0)


def test_the_ends_of_a_path_keep_their_digits() -> None:
    n, t = 30, 0.01
    b = t * path(n)
    found = exponential(b, n)
    # From end to end there is one way of n - 1 steps, and n - 1 - 2 .. ways of two more: of relative size t^2.
    first = (n - 1) * np.log(t) - lgamma(n)
    assert float(found[0, -1]) == pytest.approx(first, abs=1e-3 * t)
    ends = resolvent(b)[0, -1]
    exact = np.prod([t] * (n - 1)) / float(torch.linalg.det(torch.eye(n) - b))
    assert float(ends) == pytest.approx(exact, rel=1e-12)


def test_what_has_no_digits_is_refused() -> None:
    with pytest.raises(Refused, match="below the least number"):
        exponential(1e-20 * path(40), 40)
    with pytest.raises(Refused, match="does not converge"):
        resolvent(path(4))
