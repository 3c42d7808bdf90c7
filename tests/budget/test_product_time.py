"""The model of time: its roofline written out, what it cannot see, and shapes that were left out."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.budget.product_time import (
    FORMS,
    Product,
    Regressed,
    Roofline,
    Sums,
    Timed,
    chosen_times,
    fit_times,
    left_out_errors,
)
from eckart.errors import Refused

SHAPES = [(256, 256), (192, 576), (576, 576), (1536, 576), (576, 1536), (2048, 1024)]


def dense(rows: int, columns: int, tokens: int, kind: str = "dense") -> Product:
    return Product(kind, rows, columns, tokens, 4 * rows * columns, rows * columns)


def seconds(product: Product, peak: float = 4e10, bandwidth: float = 1e10, overhead: float = 5e-6) -> float:
    moved = product.bytes + 4 * product.tokens * (product.rows + product.columns)
    return max(2 * product.macs * product.tokens / peak, moved / bandwidth) + overhead


def market(kind: str = "dense", noise: float = 0.0, **machine: float) -> list[Timed]:
    rng = np.random.default_rng(0)
    products = [dense(*shape, tokens, kind) for shape in SHAPES for tokens in (1, 128)]
    return [Timed(p, seconds(p, **machine) * float(np.exp(noise * rng.standard_normal()))) for p in products]


def test_a_roofline_is_found_from_what_it_makes() -> None:
    model = fit_times(market() + market("slow", peak=1e10, bandwidth=3e9, overhead=5e-5), "roofline")
    for kind, peak, bandwidth, overhead in (("dense", 4e10, 1e10, 5e-6), ("slow", 1e10, 3e9, 5e-5)):
        found = model.kinds[kind]
        assert isinstance(found, Roofline)
        assert found.peak == pytest.approx(peak, rel=1e-2)
        assert found.bandwidth == pytest.approx(bandwidth, rel=1e-2)
        assert found.overhead == pytest.approx(overhead, rel=5e-2)
    unseen = dense(4096, 4096, 1)
    assert model.seconds(unseen) == pytest.approx(seconds(unseen), rel=2e-2)


def test_noise_moves_it_by_no_more_than_there_is() -> None:
    for form in FORMS:
        assert np.median(left_out_errors(market(noise=0.1), form)) < 0.25


def test_the_regressor_learns_what_a_roofline_cannot_and_is_left_out_where_it_does_not_help() -> None:
    def bent(product: Product) -> float:
        return seconds(product) * (product.columns / 576) ** 0.4

    timed = [Timed(dense(*shape, tokens), bent(dense(*shape, tokens))) for shape in SHAPES for tokens in (1, 128)]
    assert left_out_errors(timed, "regressed").mean() < left_out_errors(timed, "roofline").mean()
    plain = [Timed(each.product, each.seconds) for each in market("plain")]
    model, errors = chosen_times(timed + plain)
    assert isinstance(model.kinds["dense"], Regressed)
    assert not isinstance(model.kinds["plain"], Regressed)
    assert all(errors["chosen"].mean() <= errors[form].mean() for form in FORMS)
    far = dense(100000, 100000, 1)
    without = fit_times(timed, "roofline").seconds(far)
    assert fit_times(timed, "regressed").seconds(far) <= 2.0 * without * (1 + 1e-9)


def test_prices_are_found_from_what_they_make_and_one_bad_timing_does_not_bend_them() -> None:
    products = [dense(*shape, tokens) for shape in SHAPES for tokens in (1, 16, 128)]
    prices = np.array([1e-5, 0.0, 2e-11, 1e-10, 0.0, 0.0, 1e-9])
    timed = [Timed(product, float(prices @ product.work())) for product in products]
    timed[4] = Timed(timed[4].product, 5 * timed[4].seconds)
    model = fit_times(timed)
    for i, each in enumerate(timed):
        if i != 4:
            assert model.seconds(each.product) == pytest.approx(each.seconds, rel=0.1)
    found = model.kinds["dense"]
    assert isinstance(found, Sums)
    assert (found.prices >= 0).all()


def test_errors_are_those_of_a_model_that_saw_no_product_of_the_shape() -> None:
    timed = market(noise=0.2)
    shape = SHAPES[2]
    rest = [each for each in timed if each.product.shape != shape]
    model = fit_times(rest)
    own = [abs(model.seconds(each.product) / each.seconds - 1) for each in timed if each.product.shape == shape]
    found = left_out_errors(timed)
    assert [found[i] for i, each in enumerate(timed) if each.product.shape == shape] == pytest.approx(own)


def test_what_cannot_be_fitted_or_predicted_is_refused() -> None:
    with pytest.raises(Refused, match="positive, finite"):
        fit_times([])
    with pytest.raises(Refused, match="positive, finite"):
        fit_times([Timed(dense(8, 8, 1), 0.0)])
    with pytest.raises(Refused, match="two shapes"):
        left_out_errors([Timed(dense(8, 8, 1), 1e-5)])
    with pytest.raises(Refused, match="'masked' was timed"):
        fit_times(market()).seconds(dense(8, 8, 1, "masked"))
