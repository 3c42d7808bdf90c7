"""Summaries of streams against all rows at once."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.streams import FrequentDirections, block_power
from support import hard


def test_the_gram_matrix_is_kept_within_the_stated_and_the_proven_error() -> None:
    a = hard.with_spectrum(200, 20, hard.decaying(20, 2)).numpy()
    whole, parts = FrequentDirections(6, 20).update(a), FrequentDirections(6, 20)
    for part in np.array_split(a, 37):
        parts.update(part)
    np.testing.assert_allclose(whole.sketch, parts.sketch, atol=1e-12)
    s = np.square(np.linalg.svd(a, compute_uv=False))
    merged = FrequentDirections(6, 20).update(a[:90]).merge(FrequentDirections(6, 20).update(a[90:]))
    for found in (whole, merged):
        gap = np.linalg.eigvalsh(a.T @ a - found.sketch.T @ found.sketch)
        assert gap[0] > -1e-12
        assert gap[-1] <= found.error + 1e-12
        assert found.error <= min(s[k:].sum() / (6 - k) for k in range(6)) + 1e-12
        assert found.seen == 200


def test_few_rows_are_kept_as_they_are() -> None:
    a = hard.normal(3, 5).numpy()
    found = FrequentDirections(4, 5).update(a).update(np.zeros(5))
    np.testing.assert_allclose(found.sketch.T @ found.sketch, a.T @ a, atol=1e-12)
    assert found.error == 0
    with pytest.raises(Refused, match="rows of 4 numbers"):
        found.update(np.ones((1, 4)))


def test_a_power_step() -> None:
    a, z = hard.normal(8, 4).numpy(), np.ones(4)
    step = a.T @ a @ z
    np.testing.assert_allclose(block_power(z, a[:5], a[5:]), step / np.linalg.norm(step))
    assert block_power(z, np.zeros((2, 4))) is z
