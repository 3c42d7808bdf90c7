"""Low rank by the second moment of the inputs, stored in 8 bits."""

from torch import Tensor

from eckart.compressors._int8_low_rank import Int8LowRank, fit_int8_low_rank
from eckart.compressors.contract import compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics


@compressor(
    "svd-int8",
    paper="eckart; that 8-bit factors let nearly every rank pay is Wang et al. 2025, arXiv 2502.02723",
    expression="Chain(Quantized, Quantized)",
    needs=(Need.INPUT_SECOND_MOMENT,),
)
def svd_int8(weight: Tensor, statistics: Statistics) -> Int8LowRank:
    """W ~ P_r P_r^T W, P_r the top eigenvectors of W E[x x^T] W^T, both factors rounded to 8 bits in groups of 64.

    The projection is that of SVD-LLM and LoRD without the mean. A 16-bit matrix of n x n pays up to rank 0.95 n, where
    two 16-bit factors end at n / 2. The paper cited stores min(out, in) entries of every column of its factors in
    8 bits and the others in 16, and learns its ranks by gradients.
    """
    return fit_int8_low_rank(weight, Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT)))
