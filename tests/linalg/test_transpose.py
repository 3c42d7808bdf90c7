"""Transposes of structures against those of what they write out."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg import transpose
from eckart.structures import Dense, Selection
from support.market import DTYPES, kinds, market

NONE = {
    "semisparse",
    "masked",
    "group-sparse",
    "group-sparse-codes",
    "column-sparse",
    "kernelized",
    "scattered",
    "scored",
}
NONE |= {"quantized", "vector-quantized", "binary-coded", "interpolative", "monarch", "gaussian", "by-task"}


def test_every_structure_that_has_a_rule() -> None:
    for name, A in market(DTYPES[:1]):
        twice = any(
            isinstance(m, Selection) and not m.adjoint and len(m.index.unique()) < len(m.index) for m in A.modules()
        )
        if kinds(A) & NONE or twice:
            with pytest.raises(Refused, match=r"no rule|picks an entry twice"):
                transpose(A)
            continue
        T = transpose(A)
        assert T.shape == A.shape[::-1]
        torch.testing.assert_close(T.to_dense().double(), A.to_dense().double().T, msg=name)


def test_its_leaves_are_its_own() -> None:
    A = Dense(torch.ones(2, 3))
    T = transpose(A)
    with torch.no_grad():
        A.weight.zero_()
    assert float(T.to_dense().detach().sum()) == 6
