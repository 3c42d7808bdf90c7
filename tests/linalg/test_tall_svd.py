"""The SVD of a tall matrix beside LAPACK's: conditions, deficient and scaled ones, tensors, arrays of Dask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.linalg.tall_svd import tall_svd


def tall(condition: float, n: int = 300, p: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((m, p)))[0] for m in (n, p))
    return (u * np.geomspace(1, 1 / condition, p)) @ v.T


@pytest.mark.parametrize("condition", [1e1, 1e4, 1e6, 1e9, 1e13])
@pytest.mark.parametrize("scale", [1.0, 2.0**500, 2.0**-500])
def test_it_is_lapacks(condition: float, scale: float) -> None:
    x = tall(condition) * scale
    found = tall_svd(x)
    values = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(found.values, values, rtol=1e-10, atol=1e-14 * values[0])
    assert np.abs(found.dense() - x).max() <= 1e-13 * values[0]
    assert np.abs(found.right.T @ found.right - np.eye(8)).max() < 1e-13
    leading = tall_svd(x, 2)
    np.testing.assert_allclose(leading.values, values[:2], rtol=1e-10)
    assert np.abs(leading.left.T @ leading.left - np.eye(2)).max() < 1e-9


def test_deficient_zero_and_wide_ones() -> None:
    x = np.outer(np.arange(1.0, 41), [1.0, 2.0, -1.0])
    found = tall_svd(x)
    assert found.values[0] == pytest.approx(np.linalg.norm(x))
    assert (found.values[1:] == 0).all()
    assert np.abs(found.dense() - x).max() < 1e-12
    assert not tall_svd(np.zeros((5, 2))).values.any()
    for wrong in (x.T, x * np.nan, np.where(x == 1, np.inf, x)):
        with pytest.raises(Refused):
            tall_svd(wrong)
    with pytest.raises(Refused, match="rank=4"):
        tall_svd(x, 4)


def test_tensors_and_parts_of_dask() -> None:
    x = tall(1e4)
    kept = tall_svd(torch.from_numpy(x).float(), 3)
    assert isinstance(kept.left, torch.Tensor)
    assert kept.left.dtype == torch.float32
    array = pytest.importorskip("dask.array")
    for condition in (1e4, 1e10):
        x = tall(condition)
        found = tall_svd(array.from_array(x, chunks=(70, 4)))
        np.testing.assert_allclose(found.values, np.linalg.svd(x, compute_uv=False), rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose((found.left.compute() * found.values) @ found.right.T, x, atol=1e-13)
    with pytest.raises(Refused, match="NaN"):
        tall_svd(array.from_array(x * np.nan, chunks=(70, 8)))


def test_subnormal_numbers_and_what_is_no_real_number() -> None:
    array = pytest.importorskip("dask.array")
    x = tall(10.0)
    for scale in (2.0**-1030, 2.0**1020):
        for each in (x * scale, array.from_array(x * scale, chunks=(100, 8))):
            left = np.asarray(tall_svd(each, 3).left)
            np.testing.assert_allclose(left.T @ left, np.eye(3), atol=1e-9)
    for wrong in (array.from_array(x + 1j), array.from_array(np.full((9, 2), "a")), x + 1j):
        with pytest.raises(Refused, match="real numbers"):
            tall_svd(wrong)
    for rank in ("2", 2.5, True, [1]):
        with pytest.raises(Refused, match="rank="):
            tall_svd(x, rank)
