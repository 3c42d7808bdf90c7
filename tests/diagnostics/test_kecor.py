"""The choice of examples against determinants and Jacobians that are computed in full."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.diagnostics.contract import DIAGNOSTICS, Pool
from eckart.diagnostics.kecor import NOISE, chosen, coding_rate, proxy_kernel
from eckart.errors import Refused
from support import hard


def pool(x: Tensor, picks: int, **more: object) -> Pool:
    return Pool(x.square().sum(1), lambda i: x @ x[i], picks, **more)  # type: ignore[arg-type]


def rate(x: Tensor, index: Sequence[int], sigma: float) -> float:
    """By the features' other Gram matrix: ln det(I + X_S^T X_S / sigma^2) / 2."""
    some = x[list(index)]
    return float(torch.logdet(torch.eye(x.shape[1], dtype=x.dtype) + some.T @ some / sigma)) / 2


def test_the_kernel_is_that_of_the_jacobians() -> None:
    x, u, v = hard.normal(6, 3), hard.normal(4, 3, seed=1), hard.normal(2, 4, seed=2)
    rows = []
    for each in x:
        jacobians = torch.autograd.functional.jacobian(lambda a, b, e=each: F.silu(e @ a.T) @ b.T, (u, v))
        rows.append(torch.cat([j.flatten(1) for j in jacobians], 1))
    j = torch.stack(rows)
    kernel = torch.einsum("ncp,mcp->nm", j, j) / len(v)
    diagonal, column = proxy_kernel(x, u, v)
    assert torch.allclose(diagonal, kernel.diagonal())
    assert torch.allclose(torch.stack([column(i) for i in range(6)], 1), kernel)


def test_each_pick_adds_most_to_the_rate_and_the_entropy() -> None:
    x, entropy = hard.normal(15, 6), torch.linspace(0, 2, 15, dtype=torch.float64)
    p = pool(x, 5, entropy=entropy, labelled=(3, 8))
    sigma = NOISE * float(p.diagonal.mean())
    for weight in (0.0, 0.1, 10.0):
        found = chosen(p, weight=weight)
        taken = [3, 8]
        assert found.index[:2].tolist() == taken
        for i in found.index[2:].tolist():
            gain = {j: rate(x, [*taken, j], sigma) + weight * float(entropy[j]) for j in range(15) if j not in taken}
            assert max(gain, key=lambda j: gain[j]) == i
            taken.append(i)
        # What the entropy decides is in no determinant.
        assert float((found.gains / sigma).log().sum()) / 2 == pytest.approx(rate(x, taken, sigma))


def test_numbers_are_those_of_the_picks() -> None:
    x = hard.normal(30, 8) * torch.linspace(0.1, 2, 30, dtype=torch.float64)[:, None]
    numbers = DIAGNOSTICS["kecor"].entry(pool(x, 6, labelled=(0,)))
    picked = numbers["picked"]
    assert isinstance(picked, list)
    sigma = NOISE * float(x.square().sum(1).mean())
    added = rate(x, [0, *map(int, picked)], sigma) - rate(x, [0], sigma)
    assert numbers["coding_rate"] == pytest.approx(added)
    assert float(numbers["coding_rate_random"]) < added  # type: ignore[arg-type]
    assert coding_rate(pool(x, 1), [], sigma) == 0.0
    whole = x @ x.T + sigma * torch.eye(30, dtype=x.dtype)
    s = [0, *map(int, picked)]
    spanned = whole[:, s] @ torch.linalg.solve(whole[s][:, s], whole[s])
    assert numbers["share_left"] == pytest.approx(1 - float(spanned.trace() / whole.trace()))


def test_copies_of_an_example_are_picked_once() -> None:
    x = torch.eye(4, dtype=torch.float64).repeat(5, 1)
    picked = chosen(pool(x, 4)).index
    assert sorted((picked % 4).tolist()) == [0, 1, 2, 3]


def test_what_does_not_fit_is_refused() -> None:
    x = hard.normal(5, 3)
    for more, said in (
        ({"picks": 6}, "picks=6: there are 5 examples"),
        ({"picks": 5, "labelled": (1,)}, "there are 4 examples without labels"),
        ({"picks": 2, "labelled": (1, 1)}, "different numbers below 5"),
        ({"picks": 2, "labelled": (7,)}, "different numbers below 5"),
        ({"picks": 2, "entropy": torch.ones(4)}, r"entropies of shape \(4,\) do not go with 5"),
    ):
        with pytest.raises(Refused, match=said):
            pool(x, **more)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="no positive sum"):
        pool(torch.zeros(3, 2), 1)
    with pytest.raises(Refused, match="NaN or Inf entries among the entropies"):
        chosen(pool(x, 2, entropy=torch.full((5,), math.nan)))
    with pytest.raises(Refused, match="noise=0"):
        chosen(pool(x, 2), noise=0)
    with pytest.raises(Refused, match="not positive semi-definite"):
        chosen(Pool(torch.ones(3), lambda i: 1 - 3 * (torch.arange(3) != i).double(), 2))
