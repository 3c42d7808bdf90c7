"""Activation-aware SVD."""

from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import compressor
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics

ALPHA = 0.5
"""The exponent of the scaling; the authors' code recommends one half."""


@compressor(
    "asvd",
    paper="Yuan et al. 2023, arXiv 2312.05821",
    expression="Chain(Dense, Dense)",
    needs=(Need.INPUT_ABS_MEAN,),
)
def asvd(weight: Tensor, statistics: Statistics) -> LowRank:
    """Activation-aware SVD: W ~ (W S)_r S^-1, S = diag(E|x_j|^alpha), alpha = 1/2.

    The scaling of the paper's section 3.2 with the absolute mean; its search for ranks by measured perplexity is
    replaced by the allocation the user asks for. The authors' code takes a randomized SVD without oversampling, 3 to
    5 % above this optimum on the matrices of `benchmarks/peers/authors.py`, and a random matrix where that fails.
    """
    scale = statistics.get(Need.INPUT_ABS_MEAN) ** ALPHA
    return fit_low_rank(weight, Metric(right=damped(scale**2, 1e-6)))
