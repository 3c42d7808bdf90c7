"""Sums of Kronecker products in the place of a matrix, from the start."""

from __future__ import annotations

from eckart.errors import Refused
from eckart.linalg.kronecker import largest_divisor
from eckart.parametrizations.contract import Layer, affordable, parametrization
from eckart.structures.base import Cost
from eckart.structures.kronecker import Kronecker


@parametrization(
    "kronecker",
    paper="Zhang et al. 2021, arXiv 2102.08597",
    expression="Kronecker*",
)
def kronecker(layer: Layer, *, keep: float = 0.5, of: str = "parameters", blocks: int = 4) -> Kronecker:
    """W = sum_i A_i kron B_i: `blocks` x `blocks` rules A_i of how B_i is put together, which are learned too.

    A_i is as near to `blocks` x `blocks` as the divisors of out and in allow, and there are as many terms as `keep`
    pays for; with n = `blocks` terms of n x n these are the paper's hypercomplex multiplications, 1 / n of the numbers.
    Both factors start normal, such that the entries of W have their variance.
    """
    if blocks < 1:
        raise Refused(f"blocks={blocks} must be at least 1")
    out, columns = layer.shape
    a, b = largest_divisor(out, min(blocks, out)), largest_divisor(columns, min(blocks, columns))
    c, d = out // a, columns // b
    if a * b == 1:
        raise Refused(f"{out} and {columns} have no divisors of at most blocks={blocks} but 1")
    one = a * b + c * d
    macs = min(a * b * d + a * d * c, b * d * c + a * b * c)
    size = layer.weight.element_size()
    terms = affordable(layer.weight, keep, of, lambda r: Cost(r * one, r * one * size, r * macs), min(a * b, c * d))
    each = (layer.variance / terms) ** 0.5
    return Kronecker(layer.normal(terms, a, b, variance=each), layer.normal(terms, c, d, variance=each))
