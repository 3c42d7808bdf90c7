"""Sparse transforms against whole ones, and the values that they ask for."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.sketching.spright import Spectrum, gf2_rank, sparse_hadamard


def function(n: int, k: int, seed: int = 0) -> Spectrum:
    rng = np.random.default_rng(seed)
    index = np.unique(rng.integers(0, 2, (k, n)).astype(np.uint8), axis=0)
    values = rng.choice([-1.0, 1.0], len(index)) * rng.uniform(1, 3, len(index))
    return Spectrum(index, values)


def found_as(spectrum: Spectrum) -> dict[bytes, float]:
    return {k.tobytes(): v for k, v in zip(spectrum.index, spectrum.coefficients, strict=True)}


def test_ranks_over_two_elements() -> None:
    assert gf2_rank(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])) == 2
    assert gf2_rank(np.eye(4)) == gf2_rank(np.eye(4)[:, ::-1]) == 4
    assert gf2_rank(np.zeros((2, 3))) == 0


@pytest.mark.parametrize("n", [16, 100])
def test_a_sparse_function_is_found_exactly_from_few_values(n: int) -> None:
    for seed in range(4):
        f, asked = function(n, 20, seed), []

        def counted(x: np.ndarray, f: Spectrum = f, asked: list[int] = asked) -> np.ndarray:
            asked.append(len(x))
            return f.predict(x)

        found = sparse_hadamard(counted, n, 24, generator=seed)
        assert found.converged, found.message
        assert found.calls == sum(asked) == 4 * 32 * (n + 1)
        got, expected = found_as(found.value), found_as(f)
        assert got.keys() == expected.keys()
        assert all(got[k] == pytest.approx(expected[k]) for k in got)


def test_noise_costs_repetitions() -> None:
    f, rng = function(16, 12), np.random.default_rng(0)

    def noisy(x: np.ndarray) -> np.ndarray:
        return f.predict(x) + 1.0 * rng.standard_normal(len(x))

    for noise in (1.0, None):
        found = sparse_hadamard(noisy, 16, 12, repetitions=5, noise=noise, generator=1)
        got, expected = found_as(found.value), found_as(f)
        assert got.keys() >= expected.keys()
        assert all(abs(got[k] - expected[k]) < 0.3 for k in expected)


def test_few_bits_are_transformed_whole() -> None:
    f = function(5, 4)
    found = sparse_hadamard(f.predict, 5, 8)
    assert found.calls == 32
    got, expected = found_as(found.value), found_as(f)
    assert got.keys() == expected.keys()
    assert all(got[k] == pytest.approx(expected[k]) for k in got)
    assert sparse_hadamard(f.predict, 5, 1).error > 0


def test_what_is_not_sparse_is_said() -> None:
    dense = np.random.default_rng(0).standard_normal(1 << 14)
    found = sparse_hadamard(lambda x: dense[x.astype(int) @ (1 << np.arange(14))], 14, 4, noise=0.0, generator=0)
    assert not found.converged
    assert found.error > 0.5
    assert sparse_hadamard(lambda x: np.zeros(len(x)), 30, 3).value.index.shape == (0, 30)
    with pytest.raises(Refused, match="NaN"):
        sparse_hadamard(lambda x: np.full(len(x), np.nan), 30, 3)
    with pytest.raises(Refused, match="sparsity=0"):
        sparse_hadamard(lambda x: x, 30, 0)


@pytest.mark.parametrize("n", [6, 24])
def test_a_function_that_gives_no_value_for_each_point_is_refused(n: int) -> None:
    with pytest.raises(Refused, match="f gave values of shape"):
        sparse_hadamard(lambda bits: bits, n, 4, generator=0)
