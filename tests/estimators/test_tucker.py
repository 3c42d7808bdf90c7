"""Tucker forms: exactness, bounds, and entries that are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.tucker import core_and_bases


def planted(shape: tuple[int, ...], ranks: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.standard_normal(ranks)
    for mode, (n, r) in enumerate(zip(shape, ranks, strict=True)):
        found = np.moveaxis(np.tensordot(rng.standard_normal((n, r)), found, (1, mode)), 0, mode)
    return found


def test_what_is_of_its_kind_is_met_with_orthonormal_bases() -> None:
    truth = planted((6, 5, 4, 7), (2, 3, 2, 3))
    found = core_and_bases(torch.from_numpy(truth * 2.0**-400), (2, 3, 2, 3))
    assert isinstance(found.value.core, torch.Tensor)
    np.testing.assert_allclose(found.value.dense() * 2.0**400, truth, atol=1e-10 * np.abs(truth).max())
    for basis in found.value.bases:
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    matrix = np.random.default_rng(0).standard_normal((6, 5))
    said = core_and_bases(matrix, 2).value.dense()
    assert np.linalg.norm(matrix - said) == pytest.approx(np.sqrt(np.square(np.linalg.svd(matrix)[1][2:]).sum()))


def test_its_error_is_what_it_says_and_within_the_bound_of_the_truncated_form() -> None:
    tensor, ranks = np.random.default_rng(1).standard_normal((6, 7, 5)), (3, 4, 2)
    found = core_and_bases(tensor, ranks)
    error = np.linalg.norm(tensor - found.value.dense()) / np.linalg.norm(tensor)
    assert error == pytest.approx(found.error)
    cut = [
        np.square(np.linalg.svd(np.moveaxis(tensor, k, 0).reshape(len(tensor.swapaxes(0, k)), -1))[1][r:]).sum()
        for k, r in enumerate(ranks)
    ]
    assert error * np.linalg.norm(tensor) <= np.sqrt(sum(cut))


def test_half_may_be_missing() -> None:
    truth = planted((9, 8, 10), (2, 3, 2))
    spoilt = np.where(np.random.default_rng(1).random(truth.shape) < 0.5, np.nan, truth)
    found = core_and_bases(spoilt, (2, 3, 2))
    assert found.converged
    assert np.linalg.norm(found.value.dense() - truth) < 1e-3 * np.linalg.norm(truth)
    for basis in found.value.bases:
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)


def test_degenerate_tensors_are_met_or_refused() -> None:
    assert not core_and_bases(np.zeros((3, 2, 2)), 2).value.dense().any()
    np.testing.assert_allclose(core_and_bases(np.ones((3, 2, 2)), 2).value.dense(), 1)
    for ranks, words in (((2, 2), "ranks="), ((3, 1, 1), "none above the product"), (0, "ranks=0")):
        with pytest.raises(Refused, match=words):
            core_and_bases(np.ones((3, 2, 2)), ranks)
