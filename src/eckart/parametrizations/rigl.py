"""Sparse from the start to the end; entries move to where the gradient is largest."""

from __future__ import annotations

from eckart.parametrizations._sparse import AlongGradient, density, scattered, stored
from eckart.parametrizations.contract import Layer, parametrization
from eckart.structures.scattered import Scattered


@parametrization(
    "rigl",
    paper="Evci et al. 2020, arXiv 1911.11134",
    expression="Scattered*",
    schedule=AlongGradient,
    fold=stored,
    limit={"keep": 1.0},
)
def rigl(layer: Layer, *, keep: float = 0.1, of: str = "parameters", distribution: str = "erk") -> Scattered:
    """A share `keep` of the entries, at drawn places; every 100 steps the least of them move along the gradient.

    `keep` is that of all matrices together; `distribution` deals it out, `erk` more to small matrices, `uniform` alike.
    Entries start as those of W at their places. Every `every` steps until three quarters of all (`until`), the share
    a / 2 (1 + cos(pi t / T)) of least magnitude, a = `drop`, goes to the zeros of largest |dL/dW|, where it is zero at
    first and the optimizer remembers nothing. Unlike the authors' the step of the optimizer is taken then too. In those
    steps the gradient of the whole matrix is formed; in no other is anything of its size.

    As good as dense is not reproduced, because on a small net, two passes and a fifth of the bytes it is 0.020 behind
    the dense net, level with a narrower one, and 0.008 behind places that stay.
    """
    return scattered(layer, density(layer, keep, distribution, of))
