"""Labels that are drawn from what a model returns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.statistics import collect
from eckart.statistics.labels import sampled_gradient
from support.statistics import ALL


class Constant(nn.Module):
    """Gives the same logits at every position, whatever the input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(1, len(logits), bias=False)
        self.head.weight = nn.Parameter(logits[:, None])

    def forward(self, ids: Tensor) -> object:
        class Output:
            logits = self.head(torch.ones(*ids.shape, 1))

        return Output()


def test_labels_are_drawn_from_the_model() -> None:
    # For logits with softmax p the Fisher matrix is diag(p) - p p^T: only labels drawn from p give it.
    z = torch.tensor([1.0, 0.0, -1.0, 0.5, -2.0])
    p = z.double().softmax(0)
    model = Constant(z)
    n = 40000
    found = collect(model, {"head": model.head}, ALL, [torch.zeros(200, n // 200, dtype=torch.long)])["head"]
    torch.testing.assert_close(found.gradient_second_moment.double(), p.diag() - p.outer(p), atol=5 / n**0.5, rtol=0)


def test_other_outputs_get_gaussian_labels() -> None:
    model = nn.Sequential(nn.Linear(6, 5))
    found = collect(model, {"0": model[0]}, ALL, [torch.randn(20000, 6)])["0"]
    torch.testing.assert_close(found.gradient_second_moment, torch.eye(5), atol=5 / 20000**0.5, rtol=0)


def test_logits_under_that_name_in_a_mapping() -> None:
    z = torch.randn(3, 5)
    target, gradient, labels = sampled_gradient({"logits": z}, torch.Generator().manual_seed(0))
    assert target is z
    assert labels == 3
    assert gradient.shape == z.shape
    with pytest.raises(Refused, match="'hidden' and no 'logits'"):
        sampled_gradient({"hidden": z}, torch.Generator())
