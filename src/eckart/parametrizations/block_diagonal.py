"""Blocks along the diagonal in the place of a matrix, from the start, and their outputs dealt out to the next."""

from __future__ import annotations

import math

import torch

from eckart.errors import Refused
from eckart.parametrizations.contract import Layer, affordable, parametrization
from eckart.structures.base import Cost
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.compose import Chain
from eckart.structures.permutation import Permutation


@parametrization(
    "block-diagonal",
    paper="Zhang et al. 2018 (ShuffleNet), arXiv 1707.01083",
    expression="Chain(Permutation, BlockDiagonal*)",
)
def block_diagonal(layer: Layer, *, keep: float = 0.5, of: str = "parameters") -> Chain:
    """W = P diag(W_1, ..., W_b): groups of inputs have outputs of their own, 1 / b of the numbers and multiply-adds.

    b is the smallest common divisor of out and in that `keep` pays for. P deals the outputs of the blocks out in turns
    (the channel shuffle), so that the blocks of the layer behind see all of them. Entries are normal, of b times the
    variance of W, as each output is a sum of 1 / b of the inputs.
    """
    out, columns = layer.shape
    size = layer.weight.element_size()
    common = math.gcd(out, columns)
    divisors = [b for b in range(common, 0, -1) if common % b == 0]

    def cost(index: int) -> Cost:
        numbers = out * columns // divisors[index - 1]
        return Cost(numbers, numbers * size + 4 * out, numbers)

    blocks = divisors[affordable(layer.weight, keep, of, cost, len(divisors)) - 1]
    if blocks == 1:
        raise Refused(f"at keep={keep} it is one block: {out} and {columns} share the divisors {divisors[::-1]}")
    drawn = layer.normal(blocks, out // blocks, columns // blocks, variance=blocks * layer.variance)
    shuffle = torch.arange(out, device=layer.weight.device).view(blocks, out // blocks).T.reshape(-1)
    return Chain(Permutation(shuffle), BlockDiagonal(drawn))
