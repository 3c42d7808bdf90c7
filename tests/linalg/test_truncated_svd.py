"""The largest singular triplets: as near to the exact ones as asked, on easy and on hard matrices."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor

from eckart.linalg.truncated_svd import _exact, _lanczos, truncated_svd
from support import hard

RANK = 8


def spectra(n: int = 200) -> dict[str, Tensor]:
    """Singular values, descending, that an iteration has to stop well for."""
    index = torch.arange(n, dtype=torch.float64)
    tie = torch.linspace(2, 1, n, dtype=torch.float64)
    tie[RANK - 3 : RANK + 3] = tie[RANK - 1].item()
    return {
        "flat": torch.linspace(1.1, 1, n, dtype=torch.float64),
        "slow": (1 + index) ** -0.3,
        "fast": (1 + index) ** -2.0,
        "tie": tie,
        "step": torch.where(index < RANK, 1.0, 0.5).double(),
        "noise": torch.linalg.svdvals(hard.normal(n, n + 100)),
    }


@pytest.mark.parametrize("name", spectra())
@pytest.mark.parametrize("shape", [(200, 300), (300, 200)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-7])
def test_the_error_is_as_near_to_the_least_as_asked(name: str, shape: tuple[int, int], tolerance: float) -> None:
    s = spectra()[name]
    w = hard.with_spectrum(*shape, s)
    u, found, vh = truncated_svd(w, RANK, tolerance=tolerance, generator=torch.Generator().manual_seed(0))
    best = float(torch.linalg.vector_norm(s[RANK:]))
    # Twice: the bound is an estimate. The rest is float32.
    for product in (u @ (u.T @ w), (w @ vh.T) @ vh):
        assert float(torch.linalg.matrix_norm(w - product)) <= (1 + 2 * tolerance + 1e-6) * best + 1e-6
    assert float((u.T @ u - torch.eye(RANK)).norm()) < 1e-5
    assert float((vh @ vh.T - torch.eye(RANK)).norm()) < 1e-3
    assert (found.diff() <= 1e-6).all()
    assert float(found.square().sum() / s[:RANK].square().sum() - 1) < 1e-6


def test_the_space_is_iterated_and_not_the_whole_matrix_decomposed() -> None:
    for name, s in spectra().items():
        found = _lanczos(hard.with_spectrum(200, 300, s).float(), RANK, 1e-3, torch.Generator().manual_seed(0))
        assert (found is not None) or name in ("flat", "noise", "fast"), name


def test_angles_to_the_exact_spaces_vanish_with_the_tolerance() -> None:
    w = hard.with_spectrum(300, 240, torch.linspace(2, 1, 240, dtype=torch.float64))
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    sines = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        a, _, b = truncated_svd(w, RANK, tolerance=tolerance, generator=torch.Generator().manual_seed(0))
        off = (a - u[:, :RANK] @ (u[:, :RANK].T @ a), b.T - vh[:RANK].T @ (vh[:RANK] @ b.T))
        sines.append(max(float(torch.linalg.matrix_norm(each, 2)) for each in off))
    assert sines[0] > sines[1] > sines[2]
    assert sines[2] < 1e-3


@pytest.mark.parametrize("name", hard.weights())
def test_hard_matrices(name: str) -> None:
    w = hard.weights()[name]
    for rank in {1, min(w.shape)}:
        u, s, vh = truncated_svd(w, rank)
        exact = torch.linalg.svdvals(w.double())
        size = float(exact[0])
        assert float((s - exact[:rank]).abs().max()) <= 1e-7 * size
        assert float((u.T @ u - torch.eye(rank)).abs().max()) < 1e-8
        assert float((vh @ vh.T - torch.eye(rank)).abs().max()) < 1e-6
        best = float(torch.linalg.vector_norm(exact[rank:] / (size or 1)))
        assert float(torch.linalg.matrix_norm((w.double() - (u * s) @ vh) / (size or 1))) <= best + 1e-7


def test_hard_matrices_that_are_large() -> None:
    low = hard.normal(200, 3, seed=1) @ hard.normal(3, 250, seed=2)
    graded = hard.with_spectrum(200, 250, hard.decaying(200, 12))
    for w in (torch.zeros(200, 250), low, low.float(), graded, low * 1e-30, low * 1e30, low.bfloat16(), low.T[::2]):
        u, s, vh = truncated_svd(w, RANK)
        exact = torch.linalg.svdvals(w.double())
        assert float((u.T @ u - torch.eye(RANK)).abs().max()) < 1e-5
        assert float((s - exact[:RANK]).abs().max()) <= 1e-5 * float(exact[0])
        best = float(torch.linalg.vector_norm(exact[RANK:]))
        assert float(torch.linalg.matrix_norm(w.double() - (u * s) @ vh)) <= 1.002 * best + 1e-5 * float(exact[0])


def test_the_two_ways_agree() -> None:
    w = hard.with_spectrum(160, 160, spectra(160)["slow"])
    ours, exact = _lanczos(w.float(), RANK, 1e-9, torch.Generator().manual_seed(0)), _exact(w, RANK)
    assert ours is not None
    products = [(u.double() * s.double()) @ vh.double() for u, s, vh in (ours, exact)]
    assert float(torch.linalg.matrix_norm(products[0] - products[1])) < 1e-3 * sqrt(RANK)


@pytest.mark.parametrize("name", hard.refused())
def test_matrices_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="NaN or Inf"):
        truncated_svd(hard.refused()[name], 2)
    large = hard.normal(200, 200)
    large[3, 4] = float(name.replace("minus-", "-"))
    with pytest.raises(ValueError, match="NaN or Inf"):
        truncated_svd(large, 2)
    with pytest.raises(ValueError, match=r"rank=0 is not in 1\.\.200"):
        truncated_svd(large, 0)
