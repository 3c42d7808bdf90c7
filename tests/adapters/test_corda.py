"""CorDA against the decomposition of W C."""

from __future__ import annotations

import pytest
import torch

from support import hard
from support.starts import RANK, begin, factors, layer


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_corda_is_the_decomposition_of_w_c_undone(shape: tuple[int, int], scale: float) -> None:
    w = hard.normal(*shape)
    made = layer(w, scale=scale)
    c = made.statistics.input_second_moment
    assert c is not None
    c = c + 0.01 * c.diagonal().mean() * torch.eye(len(c))
    u, s, vh = torch.linalg.svd(w @ c, full_matrices=False)
    for method, chosen in (("corda", slice(0, RANK)), ("corda-keep", slice(min(shape) - RANK, min(shape)))):
        start, product = begin(method, made)
        expected = (u[:, chosen] * s[chosen]) @ vh[chosen] @ torch.linalg.inv(c)
        torch.testing.assert_close(product, expected, rtol=1e-9, atol=1e-9)
        left, right = factors(start)
        # The factors share S evenly: B has the root of S, A the same root times V^T C^-1.
        root = (s[chosen] / c.diagonal().mean() / scale).sqrt()
        torch.testing.assert_close(left.norm(dim=0), root)
        assert start.split
        assert right.shape == (RANK, shape[1])
    _, product = begin("corda", layer(w, moment=torch.eye(shape[1], dtype=torch.float64)))
    torch.testing.assert_close(product, begin("pissa", layer(w))[1])


@pytest.mark.parametrize("name", hard.second_moments(14))
def test_corda_of_singular_moments(name: str) -> None:
    w = hard.normal(10, 14)
    for method in ("corda", "corda-keep"):
        start, product = begin(method, layer(w, moment=hard.second_moments(14)[name]))
        assert all(torch.isfinite(factor).all() and factor.abs().max() < 1e6 for factor in factors(start))
        # A projection of W, whatever C is.
        left = factors(start)[0]
        torch.testing.assert_close(left @ torch.linalg.lstsq(left, w).solution, product, rtol=1e-6, atol=1e-6)
