"""LoRA-GA against the best approximation of the gradient."""

from __future__ import annotations

import pytest
import torch

from eckart.adapters.contract import ADAPTERS, Layer
from support import hard
from support.starts import RANK, begin, factors, layer


def test_the_first_change_of_lora_ga_is_the_gradients_best_of_twice_the_rank() -> None:
    made = layer(hard.normal(12, 20), scale=0.5)
    gradient = made.gradient
    assert gradient is not None
    start, _ = begin("lora-ga", made)
    assert start.split
    left, right = factors(start)
    size = 12**0.25 / 4
    torch.testing.assert_close(left.T @ left, size**2 * torch.eye(RANK, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    # d(BA) = dB A + B dA with dB = G A^T and dA = B^T G.
    change = (gradient.double() @ right.T @ right + left @ left.T @ gradient.double()) / size**2
    u, s, vh = torch.linalg.svd(gradient.double())
    torch.testing.assert_close(change, (u[:, : 2 * RANK] * s[: 2 * RANK]) @ vh[: 2 * RANK], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="loss does not depend"):
        ADAPTERS["lora-ga"].entry(Layer(made.weight, made.statistics, RANK, 1.0, made.generator))
