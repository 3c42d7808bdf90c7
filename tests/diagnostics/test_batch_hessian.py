"""The curvature of batches against Hessians that are computed in full."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.diagnostics.batch_hessian import batch_eigenvalue, sharpness
from eckart.diagnostics.contract import DIAGNOSTICS, Curvature
from eckart.errors import Refused
from support import hard


def network(n: int, batch: int) -> tuple[Curvature, Callable[[], Tensor]]:
    """A net with six parameters on n examples, and the Hessian of each batch."""
    x, y = hard.normal(n, 2, seed=1), hard.normal(n, 1, seed=2)
    parameters = [hard.normal(2, 2, seed=3).requires_grad_(), hard.normal(1, 4, seed=4)[:, :2].requires_grad_()]
    flat = torch.cat([p.detach().flatten() for p in parameters])

    def loss_of(first: Tensor, second: Tensor, j: int) -> Tensor:
        rows = slice(j * batch, (j + 1) * batch)
        return F.mse_loss(F.silu(x[rows] @ first.T) @ second.T, y[rows])

    def at(v: Tensor, j: int) -> Tensor:
        return loss_of(v[:4].view(2, 2), v[4:].view(1, 2), j)

    def hessians() -> Tensor:
        found = (torch.autograd.functional.hessian(lambda v, j=j: at(v, j), flat) for j in range(n // batch))
        return torch.stack(list(found))

    return Curvature.of(lambda j: loss_of(*parameters, j), parameters, n // batch, batch), hessians


def test_ends_and_variances_are_those_of_whole_hessians() -> None:
    curvature, hessians = network(40, 4)
    found, each = sharpness(curvature, probes=64), hessians()
    mean = each.mean(0)
    values, vectors = torch.linalg.eigh(mean)
    assert (found.smallest, found.largest) == pytest.approx((float(values[0]), float(values[-1])))
    rest = each - mean
    factor = 4 / (len(each) - 1)
    assert found.leading == pytest.approx(factor * float((rest @ vectors[:, -1]).square().sum()))
    assert found.noise == pytest.approx(factor * float(rest.square().sum()) / len(mean), rel=0.2)


def test_the_variance_of_single_examples_does_not_depend_on_the_batches_that_tell_it() -> None:
    variances = [sharpness(network(160, batch)[0], probes=1).leading for batch in (1, 4)]
    assert variances[1] == pytest.approx(variances[0], rel=0.3)


def test_a_spike_in_wigner_noise_moves_as_it_should() -> None:
    p, generator = 300, torch.Generator().manual_seed(0)
    for value, radius in ((3.0, 1.0), (1.5, 1.0), (0.5, 1.0)):
        noise = torch.randn(p, p, generator=generator, dtype=torch.float64)
        noise = (noise + noise.T) / math.sqrt(2 * p) * radius
        spike = hard.orthogonal(p)[:, :1]
        top = float(torch.linalg.eigvalsh(value * spike @ spike.T + noise)[-1])
        assert top == pytest.approx(batch_eigenvalue(value, radius**2, 1), rel=0.05)


def test_rates_grow_with_the_batch_and_then_do_not() -> None:
    numbers = DIAGNOSTICS["batch-hessian"].entry(network(60, 1)[0])
    batches, rates, adam = numbers["batches"], numbers["sgd_rates"], numbers["adam_rates"]
    assert isinstance(batches, list)
    assert isinstance(rates, list)
    assert isinstance(adam, list)
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(2 / float(numbers["curvature_largest"]), rel=0.02)  # type: ignore[arg-type]
    assert [a * a for a in adam] == pytest.approx([r / 2 * float(numbers["curvature_largest"]) for r in rates])  # type: ignore[arg-type]


def test_descent_is_stable_up_to_the_rate() -> None:
    """On a quadratic, where examples do not differ, 2 / lambda is the edge."""
    h = hard.normal(5, 5)
    h = h @ h.T
    curvature = Curvature([lambda v: h @ v] * 3, 1, 5)
    rate = DIAGNOSTICS["batch-hessian"].entry(curvature)["sgd_rates"][0]  # type: ignore[index]
    for factor, stable in ((0.99, True), (1.01, False)):
        w = torch.ones(5, dtype=torch.float64)
        for _ in range(2000):
            w = w - factor * rate * (h @ w)  # type: ignore[operator]
        assert (float(w.norm()) < 3) == stable


def test_what_has_no_rate_is_refused() -> None:
    card = DIAGNOSTICS["batch-hessian"]
    for product, said in (
        (lambda v: -v, "the largest eigenvalue of the Hessian is -1: no rate is too large"),
        (torch.zeros_like, "eigenvalue of the Hessian is 0"),
        (lambda v: v * math.nan, "NaN or Inf among the products"),
    ):
        with pytest.raises(Refused, match=said):
            card.entry(Curvature([product] * 2, 1, 4))
    with pytest.raises(Refused, match="1 batches of 3 examples"):
        Curvature([lambda v: v], 3, 4)
