"""Layers whose weights hold no numbers: left as they are and said to be, by every job."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import eckart

EMPTY: dict[str, Callable[[], nn.Module]] = {
    "no outputs": lambda: nn.Linear(16, 0),
    "no inputs": lambda: nn.Linear(0, 4),
    "no rows": lambda: nn.Embedding(0, 4),
    "no filters": lambda: nn.Conv2d(3, 0, 3),
}


class Net(nn.Module):
    """A layer that is called, and an empty one that is not."""

    def __init__(self, empty: nn.Module) -> None:
        super().__init__()
        self.full, self.empty = nn.Linear(16, 16), empty

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.full(x)
        return y


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("kind", EMPTY)
def test_weights_of_no_numbers(kind: str) -> None:
    x = [torch.randn(64, 16, generator=torch.Generator().manual_seed(0))]
    for method in ("svd", "kfac", "wanda", "monarch", "auto"):
        model = Net(EMPTY[kind]())
        empty = model.empty
        result = eckart.compress(model, method, keep=0.7, of="parameters", embeddings=True, calibration=x)
        assert model.empty is empty
        assert "a weight of no numbers" in result.coverage.sentence
        assert not isinstance(model.full, nn.Linear)
    model = Net(EMPTY[kind]())
    eckart.adapt(model, "lora", 2)
    assert type(model.empty) is type(empty)
    assert [row["name"] for row in eckart.diagnose(Net(EMPTY[kind]())).rows] == ["full"]
