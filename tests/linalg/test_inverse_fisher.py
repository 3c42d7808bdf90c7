"""The inverse Fisher matrix, beside the one that is formed and inverted."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg import inverse_fisher
from eckart.linalg.inverse_fisher import InverseFisher


def pair(m: int = 5, d: int = 12, damping: float = 1e-3) -> tuple[InverseFisher, torch.Tensor]:
    g = torch.randn(m, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return InverseFisher(g, damping), torch.linalg.inv(damping * torch.eye(d).double() + g.T @ g / m)


@pytest.mark.parametrize("shape", [(1, 1), (5, 12), (12, 5), (4, 1)])
def test_products_diagonals_and_elements(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverse_fisher, "COLUMNS", 5)
    fisher, dense = pair(*shape)
    d = shape[1]
    eye = torch.eye(d).double()
    torch.testing.assert_close(fisher.multiply(eye), dense)
    torch.testing.assert_close(fisher.multiply(eye[0]), dense[:, 0])
    torch.testing.assert_close(fisher.diagonal(), dense.diagonal())
    assert abs(fisher.element(0, d - 1) - float(dense[0, d - 1])) < 1e-9 * float(dense.abs().max())
    index = torch.arange(d)[::2]
    torch.testing.assert_close(fisher.block(index), dense[index][:, index])


def test_weights_that_go_are_made_up_for_at_least_cost() -> None:
    fisher, dense = pair()
    weights = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([7, 2, 11])
    found = fisher.without(weights, index)
    assert (found[index] == 0).all()
    others = torch.tensor([i for i in range(12) if i not in index])
    # Stationary: the gradient of the quadratic form is zero in what is left.
    slope = torch.linalg.inv(dense) @ (found - weights)
    torch.testing.assert_close(slope[others], torch.zeros(9).double(), rtol=0, atol=1e-9)
    assert torch.equal(fisher.without(weights, index[:0]), weights)


def test_another_gradient_in_its_place() -> None:
    fisher, _ = pair()
    new = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    fisher.replace(3, new)
    torch.testing.assert_close(fisher.diagonal(), InverseFisher(fisher.gradients.clone(), 1e-3).diagonal())
    assert torch.equal(fisher.gradients[3], new)


def test_float32_loses_little_at_a_small_damping() -> None:
    gradients = pair()[0].gradients.float()
    x = gradients[0]
    exact = InverseFisher(gradients.double(), 1e-6).multiply(x.double())
    torch.testing.assert_close(InverseFisher(gradients, 1e-6).multiply(x).double(), exact, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_inverted_is_refused() -> None:
    with pytest.raises(Refused, match="damping=0"):
        InverseFisher(torch.ones(2, 3), 0.0)
    with pytest.raises(Refused, match=r"shape \(3,\)"):
        InverseFisher(torch.ones(3), 1.0)
    with pytest.raises(Refused, match="NaN"):
        InverseFisher(torch.full((2, 3), float("nan")), 1.0)
    torch.testing.assert_close(InverseFisher(torch.zeros(2, 3), 0.5).multiply(torch.ones(3)), torch.full((3,), 2.0))
