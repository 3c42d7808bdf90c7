"""Blocks from the start: how many, and that their outputs are dealt out."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.parametrizations.block_diagonal import block_diagonal
from eckart.parametrizations.contract import Layer
from support import hard


def layer(out: int, columns: int) -> Layer:
    return Layer(hard.normal(out, columns), None, torch.Generator().manual_seed(0))


def test_blocks_are_the_fewest_that_are_paid_for_and_outputs_are_dealt_out_in_turns() -> None:
    for keep, blocks in ((0.5, 2), (0.4, 3), (0.2, 6)):
        dense = block_diagonal(layer(12, 18), keep=keep).to_dense()
        reads = (dense != 0).view(12, blocks, 18 // blocks).any(-1)  # output i is one of block i mod blocks
        assert torch.equal(reads, torch.arange(12)[:, None] % blocks == torch.arange(blocks))
    assert float(block_diagonal(layer(300, 300), keep=0.25).to_dense().square().mean()) == pytest.approx(1, rel=0.1)


def test_sizes_without_a_common_divisor_are_refused() -> None:
    with pytest.raises(Refused, match=r"the smallest has 77 parameters, more than 0\.5 of the 77"):
        block_diagonal(layer(7, 11))
    with pytest.raises(Refused, match=r"at keep=1\.0 it is one block: 4 and 6 share the divisors \[1, 2\]"):
        block_diagonal(layer(4, 6), keep=1.0)
