"""Monarch: a product of two block-diagonal matrices with a permutation between them, from the start."""

from __future__ import annotations

from eckart.errors import Refused
from eckart.linalg.monarch import BLOCKS, cuts, project
from eckart.parametrizations.contract import Layer, check_currency, check_share, parametrization
from eckart.structures.monarch import Monarch


@parametrization("monarch", paper="Dao et al. 2022, arXiv 2204.00595", expression="Monarch*")
def monarch(
    layer: Layer, *, keep: float = 0.5, of: str = "parameters", blocks: int = BLOCKS, projected: bool = False
) -> Monarch:
    """W = P_2 L P_1 R, L and R block-diagonal: two batched products in the place of one.

    W is cut into `blocks` x `blocks` blocks, each a product of rank r, the largest with r (a in + b out) <= `keep` out
    in numbers, which is the same share of bytes and multiply-adds; four blocks at half of the numbers are the authors'
    layers. Entries of both factors are drawn from a normal distribution such that those of the product have the
    variance of W; the authors draw each factor as a layer of its own. `projected` starts from the nearest such matrix
    to W instead, for trained weights: the paper's dense-to-sparse fine-tuning. Factors are not frozen in turn, and
    nothing is turned dense again at the end ("reverse sparsification").
    """
    check_share("keep", keep)
    check_currency(of)
    if blocks < 1:
        raise Refused(f"blocks={blocks} must be at least 1")
    out, columns = layer.shape
    a, b = cuts(layer.shape, blocks)
    rank = min(int(keep * out * columns) // (a * columns + b * out), out // a, columns // b)
    if rank < 1:
        raise Refused(f"its smallest Monarch matrix has {a * columns + b * out} numbers, more than {keep:.3g} of it")
    if projected:
        left, right, _ = project(layer.weight, a, b)
        return Monarch.from_blocks(left[..., :rank].to(layer.weight), right[..., :rank, :].to(layer.weight))
    each = (layer.variance / rank) ** 0.5
    return Monarch(
        layer.normal(a, out // a, b * rank, variance=each), layer.normal(b, a * rank, columns // b, variance=each)
    )
