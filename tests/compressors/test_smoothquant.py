"""SmoothQuant against equations 3 and 4 of the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import eckart
from eckart import METHODS
from eckart.structures import Chain, Dense, Diagonal, Quantized, RoundedInput, exact_input
from support import hard
from support.layers import inputs, layer, statistics_of


def test_the_scales_and_the_product_are_the_paper_s() -> None:
    weight, x, statistics = layer(12, 20)
    structure = eckart.fit(weight, "smoothquant", bits=8, statistics=statistics)
    assert isinstance(structure, Chain)
    rounded, inverse = structure.operands()
    assert isinstance(rounded, RoundedInput)
    assert isinstance(inverse, Diagonal)
    s = x.abs().amax(0).sqrt() / weight.abs().amax(0).sqrt()
    ratio = inverse.weight.detach() * s  # the same for all inputs: a common factor changes nothing
    torch.testing.assert_close(ratio, ratio[0].expand(20), rtol=1e-12, atol=0)

    y = torch.empty(len(x), 12, dtype=torch.float64)
    for i, row in enumerate(weight * s):
        step = max(float(row.max()) / 127, -float(row.min()) / 128)
        w = (row / step).round().clamp(-128, 127)
        for t, token in enumerate(x / s):
            delta = float(token.abs().max()) / 127
            y[t, i] = step * delta * float((token / delta).round() @ w)
    torch.testing.assert_close(structure(x).detach(), y, rtol=1e-9, atol=1e-9)


def test_the_stated_error_is_of_weights_and_inputs() -> None:
    weight, x, statistics = layer(12, 20)
    family = METHODS["smoothquant"].entry(weight, statistics)
    for size, error in zip(family.sizes, family.errors.tolist(), strict=True):
        structure = family.build(size).structure
        exact = exact_input(structure)
        of_weights = (x @ (weight - exact.to_dense().detach()).T).square().sum() / len(x)
        of_inputs = (structure(x) - exact(x)).detach().square().sum() / len(x)
        assert error == pytest.approx(float(of_weights + of_inputs), rel=1e-9)


def test_it_pays_where_few_inputs_are_large() -> None:
    x = inputs(64)
    x[:, [3, 40]] *= 60
    weight = hard.normal(32, 64, seed=3)
    statistics = statistics_of(x, inputs(32, seed=35))
    smooth = eckart.fit(weight, "smoothquant", bits=8, statistics=statistics)
    plain = RoundedInput(Quantized.quantize(weight, 8, 64, symmetric=True), bits=8)
    y = x @ weight.T
    assert (smooth(x) - y).norm() < 0.5 * (plain(x) - y).norm()
    exact = RoundedInput(Dense(weight), bits=8)
    assert (smooth(x) - y).norm() < 0.5 * (exact(x) - y).norm()


def test_each_token_stands_alone() -> None:
    weight, x, statistics = layer(12, 20)
    structure = eckart.fit(weight, "smoothquant", bits=8, statistics=statistics)
    changed = x.clone()
    changed[1:] *= 1e3
    torch.testing.assert_close(structure(changed)[0], structure(x)[0], rtol=1e-12, atol=1e-12)


def test_samples_of_another_matrix_are_refused() -> None:
    weight, x, statistics = layer(12, 20)
    with pytest.raises(eckart.Refused, match=r"shape \(96, 7\) do not fit a weight of shape \(12, 20\)"):
        eckart.fit(weight, "smoothquant", bits=8, statistics=replace(statistics, input_sample=x[:, :7]))
