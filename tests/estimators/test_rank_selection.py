"""Ranks of tables whose rank is known: noise of one size, of many, and none."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators.rank_selection import select_rank


def signal(rng: np.random.Generator, rank: int, size: float) -> np.ndarray:
    left, right = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (80, 40))
    return size * left @ right.T


@pytest.mark.parametrize("options", [{}, {"noise": 1.0}, {"method": "parallel", "generator": 0}])
@pytest.mark.parametrize("rank", [0, 1, 4])
def test_signals_above_noise_are_counted(options: dict, rank: int) -> None:
    rng = np.random.default_rng(rank)
    x = rng.standard_normal((80, 40)) + (signal(rng, rank, 30.0) if rank else 0.0)
    found = select_rank(x, **options).value
    assert found.rank == rank
    np.testing.assert_allclose(
        select_rank(1e6 * x, **(options | ({"noise": 1e6} if "noise" in options else {}))).value.rank, rank
    )


def test_noise_that_differs_from_column_to_column_is_for_parallel_analysis() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 40)) * np.where(np.arange(40) < 4, 8.0, 1.0)
    assert select_rank(x, "parallel", generator=0).value.rank == 0
    assert select_rank(x).value.rank > 0


def test_without_noise_it_is_the_rank() -> None:
    rng = np.random.default_rng(1)
    assert select_rank(signal(rng, 5, 1.0)).value.rank == 5
    assert select_rank(np.zeros((4, 3))).value.rank == 0
    assert select_rank(np.ones((4, 3)), "parallel").value.rank == 0


def test_what_cannot_be_met_is_refused() -> None:
    x = np.ones((4, 3))
    with pytest.raises(Refused, match="'kaiser' is none of gavish-donoho, parallel"):
        select_rank(x, "kaiser")
    with pytest.raises(Refused, match="noise=-1"):
        select_rank(x, noise=-1)
    with pytest.raises(Refused, match="noise=1 is of method"):
        select_rank(x, "parallel", noise=1)
    with pytest.raises(Refused, match="draws=0"):
        select_rank(x, "parallel", draws=0)
    with pytest.raises(Refused, match=r"draws=1\.5"):
        select_rank(x, "parallel", draws=1.5)  # type: ignore[arg-type]
