"""Codes and a product in turns: the best codes are returned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart import Metric
from eckart.linalg import project
from eckart.linalg.quantized_plus_low_rank import codes_and_product
from eckart.ops.packing import normal_float
from eckart.structures import Quantized
from support import hard


def test_lq_lora_returns_the_best_codes() -> None:
    weight, ones = hard.normal(6, 8), torch.ones(8, dtype=torch.float64)
    start = project(weight, Metric()).factors(weight, 1)
    made: list[Quantized] = []

    def quantize(rest: Tensor) -> Quantized:
        # Coarse codes are the third, which raise the error again.
        bits = 2 if len(made) == 2 else 2 + len(made)
        made.append(Quantized.quantize(rest, bits, 64, codebook=normal_float(bits)))
        return made[-1]

    chosen, left, right = codes_and_product(weight, ones[:6], ones, start, quantize)
    assert len(made) == 3
    assert chosen is made[1]
    rest = weight - chosen.to_dense().detach()
    assert float((rest - left @ right).square().sum()) == pytest.approx(float(project(rest, Metric()).errors[1]))
