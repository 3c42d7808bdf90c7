"""Fisher-weighted SVD."""

from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import compressor
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics


@compressor(
    "fwsvd",
    paper="Hsu et al. 2022, arXiv 2207.00112",
    expression="Chain(Dense, Dense)",
    needs=(Need.FISHER_COLUMNS,),
)
def fwsvd(weight: Tensor, statistics: Statistics) -> LowRank:
    """Weighted SVD: W ~ (W D)_r D^-1, D = diag(sqrt of the sums of the Fisher information over the outputs).

    The paper stores W as (in, out) and weighs its rows, the inputs, by the row sums of E[(dloss/dW)^2] (its eq. 6
    and 7); in the (out, in) layout used here these are the columns. There is no code of the authors; that of ASVD has
    the same weights in a randomized SVD, 3 to 5 % above this optimum in `benchmarks/peers/authors.py`.
    """
    return fit_low_rank(weight, Metric(right=damped(statistics.get(Need.FISHER_COLUMNS), 1e-6)))
