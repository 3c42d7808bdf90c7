"""N:M by a flow that ebbs: factors, patterns, both backwards, beside plain tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.nm_gradient_flow import patterns
from eckart.structures import SemiSparse
from support import hard
from support.reparametrizing import perceptron

X, Y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)


def best(w: Tensor, n: int, m: int) -> Tensor:
    """n of every m by hand."""
    kept = torch.zeros_like(w)
    for i in range(w.shape[0]):
        for j in range(0, w.shape[1], m):
            order = sorted(range(j, min(j + m, w.shape[1])), key=lambda k: -abs(float(w[i, k])))
            kept[i, order[:n]] = 1
    return kept


def expected_factor(w: Tensor, flow: str, done: int) -> Tensor:
    if done < 2:
        return torch.ones_like(w)
    part = min(1.0, (done - 2) / 6)
    if flow == "sdgf-stepwise":
        n = [3, 2, 1][min(int(3 * part), 2)]
        return best(w, n, 4)
    kept = best(w, 1, 4)
    left = (1 - part) if flow == "mdgf-linear" else (math.exp(-5 * part) if part < 1 else 0.0)
    return kept + (1 - kept) * left


@pytest.mark.parametrize("backward", ["decayed", "straight-through"])
@pytest.mark.parametrize("flow", ["mdgf-linear", "mdgf-exponential", "sdgf-stepwise"])
def test_every_step_beside_plain_tensors(flow: str, backward: str) -> None:
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    w = hard.normal(6, 8)
    with torch.no_grad():
        net[0].weight.copy_(w)
    made = eckart.reparametrize(
        net, "nm-gradient-flow", n=1, m=4, flow=flow, backward=backward, dense_until=0.2, mask_from=0.8
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    hooks = made.schedule(optimizer, 10)
    for done in range(10):
        factor = expected_factor(w, flow, done)
        hooks.before_step()
        (net(X) - Y).square().sum().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        slope = 2 * (X @ (w * factor).T - Y).T @ X
        w = w - 0.01 * (slope * factor if backward == "decayed" else slope)
        if done < 9:
            torch.testing.assert_close(made.structures["0"].to_dense(), w)
    made.finish()
    assert isinstance(made.structures["0"], SemiSparse)
    torch.testing.assert_close(made.structures["0"].to_dense(), w * best(w, 1, 4))


def test_patterns_grow_sparser_or_finer() -> None:
    assert patterns("sdgf-stepwise", 1, 16) == [(15, 16), (8, 16), (4, 16), (2, 16), (1, 16)]
    assert patterns("sdgf-stepwise", 2, 4) == [(3, 4), (2, 4)]
    assert patterns("sdgf-stepwise", 4, 4) == [(4, 4)]
    assert patterns("sdgf-geometric", 1, 4) == [(8, 32), (4, 16), (2, 8), (1, 4)]


def test_wrong_patterns_and_words_are_refused() -> None:
    for words, options in {
        "n=5 of every m=4": {"n": 5, "m": 4},
        "n=1 of every m=512": {"m": 512},
        "flow='mdgf' is none of mdgf-linear": {"flow": "mdgf"},
        "backward='ste' is none of decayed, straight-through": {"backward": "ste"},
        r"dense_until=0\.9 and mask_from=0\.8": {"dense_until": 0.9},
    }.items():
        with pytest.raises(Refused, match=words):
            eckart.reparametrize(perceptron(), "nm-gradient-flow", **options)
