"""Low rank from the start: what `keep` pays for, what it starts from, and the gate between the factors."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.low_rank import low_rank
from support import hard


def layer(out: int = 12, columns: int = 20) -> Layer:
    return Layer(hard.normal(out, columns), None, torch.Generator().manual_seed(0))


def test_the_rank_is_the_largest_that_is_paid_for() -> None:
    for of in ("parameters", "bytes", "macs"):
        for keep in (0.14, 0.5, 1.0):
            cost = low_rank(layer(), keep=keep, of=of).cost()
            share = getattr(cost, of) / (240 * (8 if of == "bytes" else 1))
            assert keep - 32 / 240 < share <= keep
    for words, options in {
        "the smallest has 32 parameters, more than 0.1 of the 240": {"keep": 0.1},
        "of='bits' is none of parameters, bytes, macs": {"of": "bits"},
        r"rank=13 is not in 1\.\.12": {"rank": 13},
        r"active=0 is not in \(0, 1\]": {"active": 0},
    }.items():
        with pytest.raises(Refused, match=words):
            low_rank(layer(), **options)


def test_it_starts_from_the_nearest_product_or_with_the_variance_of_the_matrix() -> None:
    weight = layer().weight
    u, s, v = torch.linalg.svd(weight)
    torch.testing.assert_close(low_rank(layer(), rank=3).to_dense(), u[:, :3] * s[:3] @ v[:3])
    drawn = low_rank(layer(300, 400), rank=50, projected=False).to_dense()
    assert float(drawn.detach().square().mean()) == pytest.approx(1.0, rel=0.1)


def test_the_gate_lets_the_largest_inner_numbers_through() -> None:
    x = hard.normal(5, 20, seed=3)
    whole, gated = low_rank(layer(), rank=8), low_rank(layer(), rank=8, active=0.25)
    inner = x @ whole.operands()[1].to_dense().T
    kept = inner.abs() >= inner.abs().topk(2).values[:, -1:]
    torch.testing.assert_close(gated(x), (inner * kept) @ whole.operands()[0].to_dense().T)
