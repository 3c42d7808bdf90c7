"""Low-rank decomposition by the covariance of the outputs."""

from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import compressor
from eckart.metrics import Metric
from eckart.statistics.moments import bias_mean, covariance
from eckart.statistics.needs import Need, Statistics


@compressor(
    "lord",
    paper="Kaushal et al. 2023, arXiv 2309.14021; Yu and Wu 2023 (AFM), AAAI",
    expression="Chain(Dense, Dense) + bias",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN),
)
def lord(weight: Tensor, statistics: Statistics) -> LowRank:
    """Principal components of the outputs: W ~ P_r P_r^T W, P_r the top eigenvectors of W Cov(x) W^T, with a bias.

    The bias (I - P_r P_r^T) W E[x] restores the mean output, so the error is never above that of the uncentred
    optimum, which is what SVD-LLM's whitening computes. In `benchmarks/peers/authors.py` the code of SVD-LLM reaches
    that optimum to six digits, for singular second moments too, but stores float32 whatever the weight is: for weights
    of 16 bits twice the bytes.
    """
    return fit_low_rank(weight, Metric.measured(right=covariance(statistics)), mean=bias_mean(statistics))
