"""Cholesky by blocks with rejection against the factor that it is, and against columns drawn one by one."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg.pivoted_cholesky import INDEFINITE, pivoted_cholesky
from eckart.linalg.rejection_cholesky import VANISHING, rejection_cholesky
from support import hard


def drawn(a: torch.Tensor, rank: int, seed: int = 0, block: int | None = None) -> object:
    generator = torch.Generator().manual_seed(seed)
    return rejection_cholesky(a.diagonal(), lambda i, rows: a[i, rows], rank, block=block, generator=generator)


@pytest.mark.parametrize("block", [1, 4, None])
def test_it_is_the_factor_of_the_columns_that_were_taken(block: int | None) -> None:
    x = hard.normal(30, 40)
    a = x @ x.T
    found = drawn(a, 11, block=block)
    assert len(found.index.unique()) == 11
    rest = a - found.factor @ found.factor.T
    assert float(rest[found.index].abs().max()) < 1e-11
    torch.testing.assert_close(rest.diagonal(), found.rest, atol=1e-11, rtol=0)
    taken = iter(found.index.tolist())
    same = pivoted_cholesky(a.diagonal(), lambda i: a[:, i], 11, choose=lambda _: next(taken))
    torch.testing.assert_close(found.factor, same.factor)
    torch.testing.assert_close(found.gains, same.gains)


def test_with_its_corners_it_asks_for_no_column_that_it_does_not_take() -> None:
    x = hard.normal(30, 12)
    a, asked = x @ x.T, []
    columns = lambda i, rows: asked.extend(i.tolist()) or a[i, rows]  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    found = rejection_cholesky(
        a.diagonal(), columns, 11, block=4, square=lambda i: a[i][:, i], generator=generator, tolerance=0.01
    )
    same = drawn(a, 11, block=4)
    assert asked == found.index.tolist() == same.index[: len(asked)].tolist()
    torch.testing.assert_close(found.factor, same.factor[:, : len(asked)])
    assert found.error <= 0.01 * float(a.trace()) or len(asked) == 11


def test_no_entry_of_the_factor_is_so_small_that_products_of_two_vanish_slowly() -> None:
    at = torch.arange(0, 60, 1.5, dtype=torch.float64)
    a = (-0.5 * (at[:, None] - at).square()).exp()
    assert ((a > 0) & (a < 1e-200)).any()
    for scale in (1.0, 2.0**200, 2.0**-200):
        found = drawn(a * scale, 20)
        sizes = found.factor.abs() / scale**0.5
        assert not ((sizes > 0) & (sizes < VANISHING)).any()
        rest = a - found.factor @ found.factor.T / scale
        assert float(rest[found.index].abs().max()) < 1e-14


def test_columns_are_gone_through_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = hard.normal(30, 12)
    a, whole = x @ x.T, drawn(x @ x.T, 9)
    monkeypatch.setattr("eckart.linalg.rejection_cholesky.NEAR", 14)
    by_rows = drawn(a, 9)
    assert by_rows.index.tolist() == whole.index.tolist()
    torch.testing.assert_close(by_rows.factor, whole.factor, atol=1e-13, rtol=0)
    torch.testing.assert_close(by_rows.rest, whole.rest, atol=1e-12, rtol=0)


def test_pairs_are_drawn_as_one_by_one() -> None:
    x = hard.normal(5, 5, seed=2)
    a, draws = x @ x.T, 1000
    chances = torch.zeros(5, 5)
    for i in range(5):
        left = (a - torch.outer(a[:, i], a[i]) / a[i, i]).diagonal().clamp_min(0)
        chances[i] = a[i, i] / a.trace() * left / left.sum()
    counts = torch.zeros(5, 5)
    for seed in range(draws):
        i, j = drawn(a, 2, seed, block=3).index.tolist()
        counts[i, j] += 1
    # 20 pairs beyond 5 standard deviations: one in 80 000.
    assert ((counts - draws * chances).abs() < 5 * (draws * chances * (1 - chances)).sqrt() + 1).all()


def test_ends() -> None:
    low = hard.normal(20, 3)
    assert len(drawn(low @ low.T, 20).index) == 3
    assert len(drawn(torch.zeros(3, 3), 2).index) == 0
    with pytest.raises(Refused, match="not positive semi-definite"):
        drawn(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), 2)
    with pytest.raises(Refused, match="no 3 columns"):
        drawn(torch.eye(2), 3)


@pytest.mark.parametrize("power", [-1000, -333, 512, 1010])
def test_a_power_of_two_changes_no_draw(power: int) -> None:
    x, scale = hard.normal(12, 3), torch.tensor(2.0, dtype=torch.float64) ** power
    plain, far = drawn(x @ x.T, 5), drawn(x @ x.T * scale, 5)
    assert plain.index.tolist() == far.index.tolist()
    torch.testing.assert_close(far.factor @ far.factor.T / scale, x @ x.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(far.gains / scale, plain.gains)
    with pytest.raises(Refused, match="small"):
        drawn(torch.tensor([[1.0, 3.0], [3.0, 1.0]], dtype=torch.float64) * 1e-315, 2)


@pytest.mark.parametrize("block", [1, 4, None])
def test_what_float32_rounded_ends_with_its_rank(block: int | None) -> None:
    for seed in range(100):
        x = hard.normal(12, 3, seed=seed % 20)
        a = (x @ x.T).float().double()
        found = drawn(a, 12, seed, block)
        assert len(found.index) >= 3
        assert float((found.factor @ found.factor.T - a).abs().max()) < 4 * INDEFINITE * float(a.max())


def test_small_pivots_hide_no_indefinite_matrix() -> None:
    a = torch.eye(3, dtype=torch.float64)
    a[1:, 1:] = torch.tensor([[1e-9, 1e-3], [1e-3, 1e-9]])
    for seed in range(10):
        with pytest.raises(Refused, match="not positive semi-definite"):
            drawn(a, 3, seed)
