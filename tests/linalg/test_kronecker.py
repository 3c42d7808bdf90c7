"""Sizes of Kronecker factors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.linalg.kronecker import largest_divisor

few = settings(deadline=None, max_examples=25)


@few
@given(st.integers(1, 200), st.integers(1, 20))
def test_largest_divisor(n: int, most: int) -> None:
    assert largest_divisor(n, most) == max(d for d in range(1, most + 1) if n % d == 0)
