"""Codebooks of vectors, each formula entry by entry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.ops.vector_codebooks import REFITS, ROUNDS, fitted_vectors, nearest_vectors, normal_vectors
from support import hard


def nearest(w: Tensor, s: Tensor, codebook: Tensor) -> Tensor:
    return (w[:, None] - s[:, None] * codebook).square().sum(-1).argmin(1)


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_the_nearest_vectors_are_found_whatever_their_size(size: float) -> None:
    codebook, w, s = hard.normal(32, 4), hard.normal(3000, 4, seed=1), hard.normal(3000, 4, seed=2).abs()
    s[:5] = 0
    s[5:9, 1:3] = 0
    found = nearest_vectors(size * w, size * s, codebook)
    assert found.dtype == torch.uint8
    assert torch.equal(found[5:].long(), nearest(w, s, codebook)[5:])
    assert not found[:5].any()


@pytest.mark.parametrize(("bits", "length"), [(3, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("out", [8, 11])
def test_the_fit_is_weighted_k_means_and_least_squares(bits: int, length: int, out: int) -> None:
    columns, group = 20, 8
    w, f = hard.normal(out, columns) * hard.decaying(out, 1)[:, None], hard.normal(columns, seed=1).square() + 0.1
    codebook, scales = fitted_vectors(w, f, bits, length, group, torch.float64)
    assert codebook.abs().max() == 1
    rows = -(-out // length) * length
    full = torch.cat([w, w.new_zeros(rows - out, columns)])
    blocks = [slice(start, min(start + group, columns)) for start in range(0, columns, group)]
    s = torch.stack([(full[:, b].square() * f[b]).sum(1).div(f[b].sum()).sqrt() for b in blocks], 1)
    c = normal_vectors(bits, length)
    each = [(v, j) for v in range(rows // length) for j in range(columns)]

    def coded() -> list[tuple[int, int, int]]:
        found = []
        for v, j in each:
            part = slice(v * length, (v + 1) * length)
            found.append((v, j, int(nearest(full[part, j][None], s[part, j // group][None], c))))
        return found

    for _ in range(ROUNDS):
        over, under = torch.zeros_like(c), torch.zeros_like(c)
        for v, j, q in coded():
            for i in range(length):
                row = v * length + i
                over[q, i] += f[j] * s[row, j // group] * full[row, j]
                under[q, i] += f[j] * s[row, j // group] ** 2
        c = torch.where(under > 0, over / under, c)
    s, c = s * c.abs().max(), c / c.abs().max()
    for _ in range(REFITS):
        over, under = torch.zeros_like(s), torch.zeros_like(s)
        for v, j, q in coded():
            for i in range(length):
                over[v * length + i, j // group] += f[j] * full[v * length + i, j] * c[q, i]
                under[v * length + i, j // group] += f[j] * c[q, i] ** 2
        s = torch.where(over > 0, over / under, s)
    torch.testing.assert_close(codebook, c, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scales, s[:out], rtol=1e-9, atol=1e-9)


def test_it_starts_where_the_vectors_of_normal_matrices_are() -> None:
    for bits, length in ((8, 4), (6, 2), (8, 1)):
        points = normal_vectors(bits, length)
        assert points.shape == (1 << bits, length)
        assert len(points.unique(dim=0)) == 1 << bits
        torch.testing.assert_close(points.flip(0), -points)
    assert float(normal_vectors(8, 1).square().mean()) == pytest.approx(3, rel=0.03)
    weight = hard.normal(128, 256)
    ones = torch.ones(256, dtype=torch.float64)
    codebook, _ = fitted_vectors(weight, ones, 8, 4, 64, torch.float64)
    assert (codebook.norm(dim=1).min() < 0.35) & (codebook.norm(dim=1).max() > 1)


def test_nothing_is_fitted_to_zeros() -> None:
    codebook, scales = fitted_vectors(torch.zeros(8, 64), torch.ones(64), 8, 4, 64, torch.bfloat16)
    assert codebook.isfinite().all()
    assert not scales.any()
