"""Sketches against the matrices that they are, and the fast transform against its matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import hadamard

from eckart.errors import Refused
from eckart.linalg.hadamard import walsh_hadamard
from eckart.linalg.sketches import SKETCHES, SRHT, SparseSign, sketch_of
from eckart.structures import Hadamard


@pytest.mark.parametrize("n", [1, 2, 8, 512])
def test_the_transform_is_its_matrix_and_its_own_inverse(n: int) -> None:
    x = np.random.default_rng(0).standard_normal((n, 3))
    expected = hadamard(n) @ x / n**0.5
    for kind in (np.float64, np.float32):
        np.testing.assert_allclose(walsh_hadamard(x.astype(kind)), expected, atol=1e-5)
        assert walsh_hadamard(x.astype(kind)).dtype == kind
    np.testing.assert_allclose(walsh_hadamard(walsh_hadamard(x[:, 0])), x[:, 0], atol=1e-12)
    np.testing.assert_allclose(walsh_hadamard(torch.from_numpy(x)).numpy(), expected, atol=1e-12)
    assert walsh_hadamard(np.arange(n)).dtype == np.float64


def test_the_transform_is_of_powers_of_two() -> None:
    with pytest.raises(Refused, match="there are 3: pad with zeros to 4"):
        walsh_hadamard(np.ones(3))


def test_a_long_transform_by_three_factors_is_that_by_blocks() -> None:
    x = np.random.default_rng(0).standard_normal((2**15, 2))
    found = walsh_hadamard(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), walsh_hadamard(x), atol=1e-11)
    assert Hadamard(2**15).cost().macs == 2**15 * (128 + 16 + 16)


@pytest.mark.parametrize("kind", SKETCHES)
def test_a_sketch_is_linear_and_sums_over_chunks(kind: str) -> None:
    n, m = 37, 12
    sketch = sketch_of(kind, m, n, 3)
    S = sketch.apply(np.eye(n))
    assert S.shape == sketch.shape == (m, n)
    a = np.random.default_rng(1).standard_normal((n, 4)) * (np.random.default_rng(2).random((n, 4)) < 0.5)
    for given in (a, sparse.csr_array(a), sparse.coo_array(a), sparse.csc_matrix(a), a.astype(np.float32)):
        np.testing.assert_allclose(sketch.apply(given), S @ a, atol=1e-6)
    np.testing.assert_allclose(sketch.apply(a[:, 0]), S @ a[:, 0], atol=1e-12)
    np.testing.assert_allclose(sketch_of(kind, m, n, np.random.default_rng(3)).apply(a), S @ a, atol=1e-12)
    if kind == "srht":
        with pytest.raises(Refused, match="use SparseSign"):
            sketch.apply_chunk(a[:10], 0)
        return
    summed = sketch.apply_chunk(a[:10], 0) + sketch.apply_chunk(sparse.csr_array(a[10:]), 10)
    np.testing.assert_allclose(summed, S @ a, atol=1e-12)
    with pytest.raises(Refused, match="rows 30 to 40"):
        sketch.apply_chunk(a[:10], 30)


@pytest.mark.parametrize("kind", [kind for kind in SKETCHES if kind != "srht"])
def test_an_array_of_dask_is_read_block_by_block(kind: str) -> None:
    dask_array = pytest.importorskip("dask.array")
    a = np.random.default_rng(1).standard_normal((37, 4))
    largest = 0

    def seen(block: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, len(block))
        return block

    sketch = sketch_of(kind, 12, 37, 3)
    parts = dask_array.from_array(a, chunks=(10, 3)).map_blocks(seen, dtype=a.dtype)
    np.testing.assert_allclose(sketch.apply(parts), sketch.apply(a), atol=1e-12)
    np.testing.assert_allclose(sketch.apply(parts[:, 0]), sketch.apply(a[:, 0]), atol=1e-12)
    assert largest == 10
    with pytest.raises(Refused, match="not for 27 rows"):
        sketch.apply(parts[:27])


@pytest.mark.parametrize("kind", SKETCHES)
def test_lengths_are_kept_in_the_mean(kind: str) -> None:
    """|S x|^2 over 400 draws: beyond 5 standard errors once in 2 million."""
    x = np.random.default_rng(0).standard_normal(24)
    squares = [float(np.square(sketch_of(kind, 8, 24, seed).apply(x)).sum()) for seed in range(400)]
    assert abs(np.mean(squares) - x @ x) < 5 * np.std(squares) / 20


def test_shapes_of_sketches() -> None:
    assert (np.diff(SparseSign(20, 30, 0, nonzeros=8).matrix.indptr) == 8).all()
    assert len(np.unique(SparseSign(5, 1, 0, nonzeros=8).matrix.indices)) == 5
    full = SRHT(16, 16, 0).apply(np.eye(16))
    np.testing.assert_allclose(full.T @ full, np.eye(16), atol=1e-12)
    for bad in (lambda: SRHT(17, 16), lambda: SparseSign(0, 3), lambda: sketch_of("fast", 2, 3)):
        with pytest.raises(Refused):
            bad()
    with pytest.raises(Refused, match="not for 4 rows"):
        SparseSign(2, 3).apply(np.ones((4, 1)))
