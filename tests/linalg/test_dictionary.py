"""Sparse codes and their atoms against matching pursuit and least squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.linalg.dictionary import conjugate_gradients, largest, least_squares_atoms, sparse_codes
from support import hard


def test_least_squares_atoms_are_those_of_lstsq() -> None:
    codes, y = hard.normal(30, 6), hard.normal(30, 9, seed=1)
    torch.testing.assert_close(least_squares_atoms(codes, y), torch.linalg.lstsq(codes, y).solution)
    codes[:, 2] = 0
    atoms = least_squares_atoms(codes, y)
    assert not atoms[2].any()
    others = torch.tensor([0, 1, 3, 4, 5])
    torch.testing.assert_close(atoms[others], torch.linalg.lstsq(codes[:, others], y).solution)


def test_conjugate_gradients_lower_the_error_of_every_row() -> None:
    atoms, y = hard.normal(8, 12), hard.normal(40, 12, seed=1)
    kept = largest(hard.normal(40, 8, seed=2), 3)
    codes = conjugate_gradients(atoms @ atoms.T, y @ atoms.T, torch.zeros(40, 8).double(), kept)
    assert not codes[~kept].any()
    for row, signal, places in zip(codes, y, kept, strict=True):
        best = torch.linalg.lstsq(atoms[places].T, signal[:, None]).solution[:, 0]
        # Three entries take three steps.
        torch.testing.assert_close(row[places], best, rtol=1e-6, atol=1e-8)


def matching_pursuit(y: Tensor, atoms: Tensor, s: int) -> Tensor:
    """Orthogonal matching pursuit, one signal after the other."""
    codes = y.new_zeros(len(y), len(atoms))
    for i, signal in enumerate(y):
        chosen: list[int] = []
        rest = signal
        for _ in range(s):
            score = (atoms @ rest).abs()
            score[chosen] = -1
            chosen.append(int(score.argmax()))
            solution = torch.linalg.lstsq(atoms[chosen].T, signal[:, None]).solution[:, 0]
            rest = signal - solution @ atoms[chosen]
        codes[i, chosen] = solution
    return codes


@pytest.mark.parametrize("seed", range(3))
def test_codes_are_no_worse_than_those_of_matching_pursuit_and_least_squares(seed: int) -> None:
    y = hard.normal(60, 24, seed=seed) * hard.decaying(24, 1)
    k, s = 16, 8
    atoms, least = torch.eye(k, 24).double(), float("inf")
    for _ in range(8):
        codes = matching_pursuit(y, atoms, s)
        atoms = least_squares_atoms(codes, y)
        least = min(least, float((y - codes @ atoms).square().sum()))
        atoms = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-12)
    codes = sparse_codes(y, k, s)
    assert ((codes != 0).sum(1) <= s).all()
    assert float((y - codes @ least_squares_atoms(codes, y)).square().sum()) <= least


def test_codes_are_no_worse_than_the_truncated_svd_of_the_same_numbers() -> None:
    y = hard.normal(120, 40, seed=3) * hard.decaying(40, 1.5)
    u, sigma, _ = torch.linalg.svd(y, full_matrices=False)
    codes = sparse_codes(u * sigma, 20, 10)
    error = (u * sigma - codes @ least_squares_atoms(codes, u * sigma)).square().sum()
    # 10 x 120 + 20 x 40 numbers
    rank = (10 * 120 + 20 * 40) // (120 + 40)
    assert sigma[20:].square().sum() <= error < sigma[rank:].square().sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_known_codes_give_back_the_matrix(dtype: torch.dtype) -> None:
    codes = hard.normal(40, 8) * largest(hard.normal(40, 8, seed=1), 3)
    weight = (codes @ hard.normal(8, 14, seed=2)).to(dtype)
    atoms = least_squares_atoms(codes, weight.double())
    torch.testing.assert_close((codes @ atoms).to(dtype), weight)
    # and given the atoms, enough steps of coding give back codes of no error
    gram, products = atoms @ atoms.T, weight.double() @ atoms.T
    found = conjugate_gradients(gram, products, torch.zeros_like(codes), codes != 0)
    torch.testing.assert_close((found @ atoms).to(dtype), weight, rtol=1e-4, atol=1e-4)
