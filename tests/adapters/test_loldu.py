"""LoLDU against the matrix it decomposes."""

from __future__ import annotations

import pytest
import torch

from support import hard
from support.starts import begin, layer


@pytest.mark.parametrize("name", ["general", "tall", "zero", "rank-deficient", "repeated", "1xn", "nx1", "kahan"])
def test_loldu_is_a_decomposition_of_the_matrix(name: str) -> None:
    w = hard.weights()[name]
    full = min(w.shape)
    _, product = begin("loldu", layer(w, rank=full))
    torch.testing.assert_close(product, w, rtol=1e-9, atol=1e-9)
    start, _ = begin("loldu", layer(w, rank=1))
    assert sum(p.numel() for p in start.path.parameters() if p.requires_grad) == 2
