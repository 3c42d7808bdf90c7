"""Pivoted Cholesky against decompositions of whole matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.pivoted_cholesky import INDEFINITE, Pivots, greatest, pivoted_cholesky
from support import hard


def of(a: Tensor, rank: int, **options: Callable[[Tensor], int]) -> Pivots:
    return pivoted_cholesky(a.diagonal(), lambda i: a[:, i], rank, **options)


def gram(n: int, k: int, seed: int = 0) -> Tensor:
    x = hard.normal(n, k, seed=seed)
    return x @ x.T


def test_columns_that_are_taken_are_met_and_the_error_is_the_trace_of_the_rest() -> None:
    a = gram(30, 40)
    found = of(a, 11)
    rest = a - found.factor @ found.factor.T
    assert float(rest[found.index].abs().max()) < 1e-12
    assert torch.allclose(rest.diagonal(), found.rest, atol=1e-12)
    assert found.error == pytest.approx(float(torch.linalg.matrix_norm(rest, "nuc")))
    assert float(torch.linalg.eigvalsh(rest)[0]) > -1e-12
    chosen = a[found.index][:, found.index]
    assert found.logdet == pytest.approx(float(torch.logdet(chosen)))


def test_each_step_gains_the_most_determinant() -> None:
    a = gram(12, 20, seed=1)
    taken: list[int] = []
    for i in of(a, 5).index.tolist():
        gains = {j: float(torch.det(a[[*taken, j]][:, [*taken, j]])) for j in range(12) if j not in taken}
        assert max(gains, key=lambda j: gains[j]) == i
        taken.append(i)


def test_it_ends_with_the_rank() -> None:
    a = gram(25, 4)
    found = of(a, 25)
    assert len(found.index) == 4
    assert found.error == 0
    assert torch.allclose(found.factor @ found.factor.T, a, atol=1e-10)
    assert len(of(torch.zeros(3, 3), 2).index) == 0
    assert torch.equal(of(torch.eye(4), 4).index, torch.arange(4))


@pytest.mark.parametrize("scale", [1e-150, 1.0, 2.0**400])
def test_scale_changes_no_choice(scale: float) -> None:
    a = gram(20, 30)
    one, other = of(a, 7), of(a * scale, 7)
    assert torch.equal(one.index, other.index)
    assert other.error == pytest.approx(one.error * scale)


def test_drawn_in_proportion_to_the_rest_it_is_near_the_best() -> None:
    """RPCholesky: an error of at most (1 + e) times that of the best rank r, in the mean, for k large enough."""
    x = hard.with_spectrum(60, 60, torch.arange(1, 61).double() ** -1.5)
    a = x @ x.T
    generator = torch.Generator().manual_seed(0)

    def drawn(rest: Tensor) -> int:
        return int(torch.multinomial(rest, 1, generator=generator))

    errors = [of(a, 20, choose=drawn).error for _ in range(30)]
    best = float(torch.linalg.eigvalsh(a)[: 60 - 10].sum())
    assert sum(errors) / len(errors) < 1.5 * best


def test_what_is_no_such_matrix_is_refused() -> None:
    with pytest.raises(Refused, match="not positive semi-definite: -3 is left on the diagonal at 1"):
        of(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 2)
    with pytest.raises(Refused, match="NaN or Inf entries on the diagonal"):
        of(torch.full((2, 2), torch.nan), 1)
    with pytest.raises(Refused, match="NaN or Inf entries in column 0"):
        pivoted_cholesky(torch.ones(2), lambda i: torch.tensor([1.0, torch.inf]), 1)
    with pytest.raises(Refused, match="has no 3 columns"):
        of(torch.eye(2), 3)
    with pytest.raises(Refused, match="column 0 was chosen, of which nothing is left"):
        of(torch.eye(2), 2, choose=lambda rest: 0)


@pytest.mark.parametrize("n", [12, 300])
def test_what_float32_rounded_ends_with_its_rank(n: int) -> None:
    for seed in range(20):
        a = gram(n, 3, seed=seed).float().double()
        found = of(a, 12)
        assert len(found.index) >= 3
        assert float((found.factor @ found.factor.T - a).abs().max()) < 4 * INDEFINITE * float(a.max())


def test_small_pivots_hide_no_indefinite_matrix() -> None:
    a = torch.eye(3, dtype=torch.float64)
    a[1:, 1:] = torch.tensor([[1e-9, 1e-3], [1e-3, 1e-9]])
    for choose in (greatest, lambda rest: int(rest.nonzero()[-1])):
        with pytest.raises(Refused, match="not positive semi-definite"):
            of(a, 3, choose=choose)
