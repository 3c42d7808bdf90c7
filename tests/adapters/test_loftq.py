"""LoftQ against its alternation."""

from __future__ import annotations

import pytest
import torch

from eckart.adapters.contract import ADAPTERS
from eckart.ops.packing import normal_float
from eckart.structures import Quantized
from support import hard
from support.starts import begin, layer


def test_what_quantization_loses_is_what_the_product_starts_at() -> None:
    w = hard.normal(40, 64).float() * torch.logspace(0, -2, 40)[:, None]
    made = layer(w, rank=4)
    rows, columns = made.statistics.fisher_rows, made.statistics.fisher_columns
    assert rows is not None
    assert columns is not None
    errors = {}
    for method in ("loftq", "lq-lora"):
        for scale in (1.0, 0.5):
            start, product = begin(method, layer(w, rank=4, scale=scale))
            assert isinstance(start.frozen, Quantized)
            assert (start.frozen.bits, start.frozen.group) == (4, 64)
            rest = w.double() - start.frozen.to_dense().detach().double() - product
            errors[method] = float(rest.norm()), float((rows[:, None] * rest.square() * columns).sum())
    plain = w.double() - Quantized.quantize(w, 4, 64, codebook=normal_float(4)).to_dense().detach().double()
    tail = torch.linalg.svdvals(plain)[4:].norm()
    assert errors["loftq"][0] <= float(tail) * (1 + 1e-6)
    assert errors["loftq"][0] < errors["lq-lora"][0]
    assert errors["lq-lora"][1] < errors["loftq"][1]


def test_the_best_turn_of_loftq_is_kept() -> None:
    codebook = normal_float(4)
    last_is_best = set()
    for seed in range(4):
        w = hard.normal(8, 6, seed=seed)
        product, found = torch.zeros_like(w), []
        for _ in range(5):
            rest = w - Quantized.quantize(w - product, 4, 64, codebook=codebook).to_dense().detach()
            u, s, vh = torch.linalg.svd(rest, full_matrices=False)
            product = (u[:, :2] * s[:2]) @ vh[:2]
            found.append(float((rest - product).norm()))
        start, product = begin("loftq", layer(w, rank=2))
        assert start.frozen is not None
        assert float((w - start.frozen.to_dense().detach() - product).norm()) == pytest.approx(min(found), rel=1e-6)
        last_is_best.add(min(found) == found[-1])
    assert False in last_is_best


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_loftq_where_squares_overflow_or_vanish(scale: float) -> None:
    weight = hard.normal(24, 20, seed=3)
    errors = []
    for factor in (1.0, scale):
        start = ADAPTERS["loftq"].entry(layer(weight * factor))
        assert start is not None
        assert start.frozen is not None
        found = (start.frozen.to_dense() + start.path.to_dense()).detach() / factor
        errors.append(float(torch.linalg.matrix_norm(found - weight)))
    assert errors[1] < 1.1 * errors[0]
