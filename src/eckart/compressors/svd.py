"""Truncated singular value decomposition."""

from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics


@compressor("svd", paper="Eckart and Young 1936", expression="Chain(Dense, Dense)", in_metric=fit_low_rank)
def svd(weight: Tensor, statistics: Statistics) -> LowRank:
    """Plain SVD: W ~ U_r S_r V_r^T, the best rank-r matrix in the Frobenius norm.

    Knows nothing of the data, and loses to every method that does as soon as inputs are far from white.
    """
    return fit_low_rank(weight, Metric())
