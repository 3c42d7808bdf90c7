"""FedSVD: the server's step against a plain decomposition, and the adapter that it equals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.adapters.fedsvd import mean, refactored, server
from eckart.errors import Refused
from eckart.structures import Scaled
from support.one_layer import IN, OUT, normal, start

RANK = 3


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e200, 1e-200), (1e-160, 1e-140)])
def test_the_server_factors_the_product_anew(scales: tuple[float, float]) -> None:
    b, a = scales[0] * normal(OUT, RANK).double(), scales[1] * normal(RANK, IN, seed=1).double()
    left, right = refactored(b, a)
    expected = torch.linalg.svdvals((b / scales[0]) @ (a / scales[1]))[:RANK]
    torch.testing.assert_close(right @ right.T, torch.eye(RANK).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close((left / scales[0] / scales[1]).norm(dim=0), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(left / scales[0] / scales[1] @ right, (b / scales[0]) @ (a / scales[1]))
    gram = (left / scales[0] / scales[1]).T @ (left / scales[0] / scales[1])
    torch.testing.assert_close(gram, torch.diag(expected.square()), rtol=0, atol=1e-12)


def test_directions_that_b_has_not_come_from_the_rows_of_a() -> None:
    a = normal(RANK, IN).double()
    b = normal(OUT, 1, seed=1).double() @ normal(1, RANK, seed=2).double()
    _, right = refactored(b, a)
    torch.testing.assert_close(torch.linalg.lstsq(a.T, right.T).solution.T @ a, right)
    zero = torch.zeros_like(b)
    assert refactored(zero, a) == (zero, a)


def test_the_mean_is_weighted_and_refuses_what_is_none() -> None:
    factors = [normal(OUT, RANK, seed=i) for i in range(3)]
    torch.testing.assert_close(mean(factors), sum(factors) / 3)
    torch.testing.assert_close(mean(factors, [2, 0, 6]), 0.25 * factors[0] + 0.75 * factors[2])
    for words, arguments in {
        "there is no client": ([],),
        "of one shape": ([factors[0], factors[1].T],),
        "client 1 trained is not finite": ([factors[0], factors[1] * float("nan")],),
        r"weights=\[1\] must be 3 finite": (factors, [1]),
        r"weights=\[1, 2, -1\]": (factors, [1, 2, -1]),
        r"weights=\[0, 0, 0\]": (factors, [0, 0, 0]),
    }.items():
        with pytest.raises(Refused, match=words):
            mean(*arguments)


def clipped(gradient: Tensor, noise: Tensor) -> Tensor:
    """The mean of gradients (samples, ...), each of norm 1 at most, and noise."""
    norms = gradient.flatten(1).norm(dim=1).clamp_min(1.0)
    return (gradient / norms[:, None, None]).mean(0) + noise


def test_under_private_sgd_it_is_a_frozen_orthonormal_a() -> None:
    """Rounds of two clients with per-sample clipping and one noise for both, with and without the server's SVD."""
    a = torch.linalg.qr(normal(IN, RANK).double()).Q.T
    x, y = normal(2, 20, IN, seed=1).double(), normal(2, 20, OUT, seed=2).double()
    anew, still = (torch.zeros(OUT, RANK).double(), a.clone()), (torch.zeros(OUT, RANK).double(), a.clone())
    for turn in range(6):
        found = []
        for b, rows in (anew, still):
            trained = []
            for client in range(2):
                moved = b.clone()
                for step in range(3):
                    error = x[client] @ rows.T @ moved.T - y[client]
                    noise = 0.05 * normal(OUT, IN, seed=100 * turn + 10 * client + step).double()
                    sample = error[:, :, None] * (x[client] @ rows.T)[:, None, :]
                    # One noise in the space of the product, so that both see the same.
                    moved = moved - 0.3 * clipped(sample, noise @ rows.T)
                trained.append(moved)
            found.append(mean(trained))
        anew, still = refactored(found[0], anew[1]), (found[1], still[1])
    assert not torch.allclose(anew[1], still[1], atol=0.1)
    torch.testing.assert_close(anew[0] @ anew[1], still[0] @ still[1], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(anew[1].T @ anew[1], a.T @ a, rtol=0, atol=1e-12)


def test_only_b_trains_and_a_is_orthonormal() -> None:
    path = start("fedsvd", normal(OUT, IN), RANK, scale=2.0).path
    b, a = path.parameters()
    assert (b.requires_grad, a.requires_grad) == (True, False)
    torch.testing.assert_close(a @ a.T, torch.eye(RANK), rtol=0, atol=1e-6)
    assert not b.any()
    with torch.no_grad():
        b.copy_(normal(OUT, RANK))
    scaled = Scaled(path, scale=0.5)
    before = scaled.to_dense().detach()
    server({"w": scaled})
    assert not torch.equal(b, normal(OUT, RANK))
    torch.testing.assert_close(scaled.to_dense().detach(), before, rtol=1e-5, atol=1e-6)
