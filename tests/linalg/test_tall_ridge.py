"""Ridge regression by blocks against the normal equations, and against leaving each row out."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg.tall_ridge import tall_ridge
from support import hard


@pytest.mark.parametrize(("n", "k"), [(30, 4), (3, 6)])
def test_weights_and_left_out_errors_are_those_of_the_formula(n: int, k: int) -> None:
    f, y = hard.normal(n, k), hard.normal(n, 2, seed=1)
    blocks = lambda: zip(f.split(7), y.split(7), strict=True)  # noqa: E731
    found = tall_ridge(blocks)
    alphas = torch.tensor([0.1, 3.0], dtype=torch.float64)
    errors, best = found.left_out(blocks, alphas)
    left = torch.zeros(2, n, 2, dtype=torch.float64)
    for a, alpha in enumerate(alphas.tolist()):
        eye = alpha * torch.eye(k, dtype=torch.float64)
        torch.testing.assert_close(found.weights(alpha), torch.linalg.solve(f.T @ f + eye, f.T @ y))
        for i in range(n):
            rest = [j for j in range(n) if j != i]
            left[a, i] = y[i] - f[i] @ torch.linalg.solve(f[rest].T @ f[rest] + eye, f[rest].T @ y[rest])
    torch.testing.assert_close(errors, left.square().sum(1))
    torch.testing.assert_close(best, left[int(errors.sum(1).argmin())])


def test_ends() -> None:
    f, y = hard.normal(9, 3), hard.normal(9, 1, seed=1)
    f[:, 2] = f[:, 0]
    shortest = tall_ridge(lambda: [(f, y)]).weights(0.0)
    torch.testing.assert_close(shortest, torch.linalg.pinv(f) @ y)
    assert tall_ridge(lambda: [(0 * f, y)]).weights(1.0).abs().max() == 0
    assert tall_ridge(lambda: [(f[:, :0], y)]).weights(1.0).shape == (0, 1)
    with pytest.raises(Refused, match="1 NaN or Inf"):
        tall_ridge(lambda: [(f, torch.where(y == y[0], torch.nan, y))])
    with pytest.raises(Refused, match="no rows"):
        tall_ridge(lambda: [])
