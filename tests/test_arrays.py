"""Complex numbers at the door, where they are taken, and results back in the precision that came."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.arrays import back, dense, power_of_two
from eckart.errors import Refused


def test_complex_numbers_come_in_where_they_are_taken() -> None:
    x = np.array([[1 + 2j]], np.complex64)
    assert dense(x, complex_too=True).dtype == np.complex128
    assert dense(torch.from_numpy(x).conj(), complex_too=True)[0, 0] == 1 - 2j
    assert dense(x.real, complex_too=True).dtype == np.float64
    with pytest.raises(Refused, match="complex64, and real numbers"):
        dense(x)
    with pytest.raises(Refused, match="1 NaN or Inf"):
        dense(x * np.nan, complex_too=True)


@pytest.mark.parametrize(
    ("came", "real", "imaginary"),
    [
        (np.float32, np.float32, np.complex64),
        (np.complex64, np.float32, np.complex64),
        (np.float64, np.float64, np.complex128),
        (np.int64, np.float64, np.complex128),
    ],
)
def test_results_go_back_in_the_precision_that_came(came: type, real: type, imaginary: type) -> None:
    for like in (np.ones(2, came), torch.from_numpy(np.ones(2, came))):
        for result, dtype in ((np.ones(3), real), (np.ones(3, complex), imaginary)):
            found = back(result, like)
            assert type(found) is type(like)
            assert np.asarray(found).dtype == dtype
        assert np.asarray(back(np.arange(3), like)).dtype == np.int64


def test_a_power_of_two_lies_below_the_largest_entry_and_not_far() -> None:
    for x in (3.0, 4.0, 2.0**-800, 1 + 1j, np.finfo(float).max, 5e-324):
        assert abs(x) / 2 < power_of_two(np.array([x, 0])) <= abs(x)
    assert power_of_two(np.zeros(2)) == 1
    assert power_of_two(np.zeros(0)) == 1
