"""Larger sparse forms of a matrix that take as many multiply-adds as it did; entries move along the gradient."""

from __future__ import annotations

import math

from eckart.errors import Refused
from eckart.parametrizations._sparse import AlongGradient, at, drawn, scattered, stored
from eckart.parametrizations.contract import Layer, parametrization
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain, Sum
from eckart.structures.low_rank import low_rank
from eckart.structures.scattered import Scattered

FORMS = ("factorized", "parallel", "doped")


@parametrization(
    "sparse-ift",
    paper="Thangarasa et al. 2024, arXiv 2303.11525",
    expression="Chain(Scattered*, Scattered*), Sum(Scattered*, ...) or Sum(Chain(Dense*, Dense*), Scattered*)",
    schedule=AlongGradient,
    fold=stored,
)
def sparse_ift(layer: Layer, *, form: str = "factorized", sparsity: float = 0.75) -> StructuredMatrix:
    """A sparse form with as many multiply-adds as W has: a wider product, several branches, or low rank and sparse.

    With s = `sparsity`: `factorized` is U V of sparse factors, the inner size d with (1 - s) d (out + in) = out in;
    `parallel` a sum of 1 / (1 - s) sparse branches, without functions between them, so one matrix; `doped` a product of
    dense factors of rank s out in / (out + in) beside a sparse matrix. The paper's fourth, `wide`, needs neighbours of
    other sizes and is refused. Entries move as in `rigl`. Sizes are rounded: `made` prints the multiply-adds. Numbers
    are as many as those of W, their places come on top, and no time is saved where sparse products are slower than
    dense ones.

    Better than the dense net is not reproduced, because on a small net and two passes it is 0.005 behind it in its wide
    form, 0.009 in its doped one, 0.012 in its factorized and 0.015 in its parallel one.
    """
    if form == "wide":
        raise Refused(
            f"form='wide' changes the sizes of the neighbours: make the model 1 / sqrt(1 - s) = "
            f"{(1 - sparsity) ** -0.5 if sparsity < 1 else math.inf:.3g} times as wide, and take rigl with keep=1 - s"
        )
    if form not in FORMS:
        raise Refused(f"form={form!r} is none of {', '.join(FORMS)}")
    if not 0 < sparsity < 1:
        raise Refused(f"sparsity={sparsity} is not in (0, 1)")
    out, columns = layer.shape
    entries, share = out * columns, 1 - sparsity
    if form == "parallel":
        if (branches := round(1 / share)) < 2:
            raise Refused(f"sparsity={sparsity} makes one branch")
        return Sum(*(scattered(layer, 1 / branches) for _ in range(branches)))
    if form == "doped":
        if (rank := round(sparsity * entries / (out + columns))) < 1:
            raise Refused(f"sparsity={sparsity} leaves a low-rank part of rank 0 in a matrix {layer.shape}")
        each = (sparsity * layer.variance / rank) ** 0.5
        product = low_rank(layer.normal(out, rank, variance=each), layer.normal(rank, columns, variance=each))
        left = max(1, entries - rank * (out + columns))
        return Sum(product, at(layer.weight, drawn(left, entries, layer.generator)))
    inner = max(1, round(entries / (share * (out + columns))))
    each = (layer.variance / (inner * share**2)) ** 0.5

    def factor(rows: int, width: int) -> Scattered:
        return at(
            layer.normal(rows, width, variance=each),
            drawn(max(1, round(share * rows * width)), rows * width, layer.generator),
        )

    return Chain(factor(out, inner), factor(inner, columns))
