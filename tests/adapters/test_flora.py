"""FLoRA against sums over its modes."""

from __future__ import annotations

import torch

from eckart.adapters.contract import ADAPTERS, Layer
from eckart.adapters.flora import ranks
from eckart.statistics import Statistics
from support import hard
from support.one_layer import IN, OUT, RANK, normal, start, stirred


def test_flora_is_a_tucker_product() -> None:
    path = start("flora", normal(OUT, IN)).path
    stirred(path)
    u, core, v = (p.detach() for p in path.parameters())
    assert (u.shape, core.shape, v.shape) == ((OUT, RANK), (RANK, RANK), (RANK, IN))
    torch.testing.assert_close(path.to_dense(), torch.einsum("ia,ab,bj->ij", u, core, v))


def test_a_core_between_four_modes() -> None:
    weight, size = hard.normal(6, 5 * 3 * 2).float(), (6, 5, 3, 2)
    start = ADAPTERS["flora"].entry(Layer(weight, Statistics(patch=(3, 2)), 4, 1.0, torch.Generator().manual_seed(0)))
    assert start is not None
    core = next(p for p in start.path.parameters() if not p.any())
    with torch.no_grad():
        core.copy_(hard.normal(*core.shape).float())
    u1, g, (u3, u4), u2 = (list(part.parameters()) for part in start.path.operands())
    g = g[0].reshape(ranks(size, 4))
    expected = torch.einsum("op,pqst,qc,sy,tx->ocyx", u1[0], g, u2[0], u3, u4)
    torch.testing.assert_close(start.path.to_dense().reshape(size), expected)
