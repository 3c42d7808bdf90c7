"""LQ-LoRA: codes, and the best product for what they leave, weighted by the Fisher information."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.ops.packing import normal_float
from eckart.structures import Quantized
from support import hard
from support.codes import nearest
from support.starts import RANK, begin, layer


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_product_is_the_best_for_what_the_codes_leave(scale: float) -> None:
    w = hard.normal(12, 70)
    made = layer(w, scale=scale)
    rows, columns = made.statistics.fisher_rows, made.statistics.fisher_columns
    assert rows is not None
    assert columns is not None
    g, h = (rows + 1e-6 * rows.mean()).sqrt()[:, None], (columns + 1e-6 * columns.mean()).sqrt()

    def best(rest: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(g * rest * h, full_matrices=False)
        return (u[:, :RANK] * s[:RANK] @ vh[:RANK]) / g / h

    start, product = begin("lq-lora", made)
    assert isinstance(start.frozen, Quantized)
    codes = start.frozen.to_dense().detach()
    torch.testing.assert_close(product, best(w - codes), rtol=1e-6, atol=1e-7)
    # The paper's alternation, an SVD in every turn, comes no nearer than by a fiftieth.
    errors, other = [], best(w)
    for _ in range(8):
        rounded = nearest(w - other, normal_float(4), 64)
        other = best(w - rounded)
        errors.append(float((g * (w - rounded - other) * h).square().sum()))
    assert float((g * (w - codes - product) * h).square().sum()) < 1.02 * min(errors)
