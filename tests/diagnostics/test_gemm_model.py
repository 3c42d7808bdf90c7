"""The model of time against its roofline, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.budget.product_time import Product, Timed
from eckart.diagnostics.contract import DIAGNOSTICS, Timings
from eckart.errors import Refused

SHAPES = [(256, 256), (192, 576), (576, 576), (1536, 576), (576, 1536)]


def roofline(kind: str, rows: int, columns: int, tokens: int, noise: float = 0.0) -> Timed:
    product = Product(kind, rows, columns, tokens, 4 * rows * columns, rows * columns)
    read = 4 * (rows * columns + tokens * (rows + columns))
    seconds = max(2 * rows * columns * tokens / 5e10, read / 2e10) + 3e-6
    return Timed(product, seconds * float(np.exp(noise)))


def test_a_roofline_predicts_its_own_products_of_other_shapes() -> None:
    timed = [roofline(kind, *shape, t) for kind in ("a", "b") for shape in SHAPES for t in (1, 64)]
    numbers = DIAGNOSTICS["gemm-model"].entry(Timings(timed))
    assert (numbers["products"], numbers["kinds"]) == (20, 2)
    assert numbers["roofline_error"] == pytest.approx(0.0, abs=1e-3)
    assert numbers["time_error_largest"] == pytest.approx(0.0, abs=1e-3)


def test_what_depends_on_the_shape_is_regressed() -> None:
    timed = [roofline("a", *shape, t, noise=0.3 * np.log(shape[0] / 576)) for shape in SHAPES for t in (1, 64)]
    numbers = DIAGNOSTICS["gemm-model"].entry(Timings(timed))
    assert numbers["time_error"] == numbers["regressed_error"] < numbers["roofline_error"]


def test_what_is_decoded_first_is_a_sum() -> None:
    timed = []
    for density in (0.2, 0.5):
        for rows, columns in SHAPES:
            for tokens in (1, 64):
                entries = rows * columns
                product = Product("masked", rows, columns, tokens, int(4 * density * entries), int(density * entries))
                seconds = 1e-5 + 1e-10 * entries * (1 + density) + 2e-11 * entries * tokens
                timed.append(Timed(product, seconds))
    numbers = DIAGNOSTICS["gemm-model"].entry(Timings(timed))
    assert numbers["time_error_largest"] == pytest.approx(0.0, abs=1e-4)
    assert numbers["roofline_error"] > 0.05


def test_one_shape_predicts_no_other() -> None:
    with pytest.raises(Refused, match="two shapes"):
        DIAGNOSTICS["gemm-model"].entry(Timings([roofline("a", 8, 8, t) for t in (1, 64)]))
