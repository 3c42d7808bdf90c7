"""Kronecker products from the start: how many terms, and their variance."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.kronecker import kronecker
from support import hard


def test_terms_are_paid_for_and_entries_have_the_variance_of_the_matrix() -> None:
    layer = Layer(hard.normal(240, 200), None, torch.Generator().manual_seed(0))
    for keep in (0.1, 0.3):
        made = kronecker(layer, keep=keep)
        one = 16 + 60 * 50
        assert len(made.left) == int(keep * 48_000 / one)
        assert made.cost().parameters == len(made.left) * one
        assert float(made.to_dense().square().mean()) == pytest.approx(1, rel=0.5)
    assert kronecker(layer, keep=0.3, of="macs").cost().macs <= 0.3 * 48_000
    torch.testing.assert_close(made.to_dense(), sum(map(torch.kron, made.left, made.right)))


def test_primes_are_refused() -> None:
    layer = Layer(hard.normal(7, 11), None, torch.Generator().manual_seed(0))
    with pytest.raises(Refused, match="7 and 11 have no divisors of at most blocks=4 but 1"):
        kronecker(layer)
    with pytest.raises(Refused, match="blocks=0 must be at least 1"):
        kronecker(layer, blocks=0)
